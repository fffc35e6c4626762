"""HC18: head circumference in millimetres from its authors' table, a part of the fetuses held out.

The circumference is predicted in pixels of the square; the table's pixel size and the resizing turn it into
millimetres. A fetus has up to three images, whose names begin with its number. Lines of the table whose image does not
exist are left out with a warning. ULTRASAM_HC18 names the folder that holds the table and training_set/; without it,
data/hc18 below the working directory.
"""

data_root = "{{$ULTRASAM_HC18:data/hc18}}"

train_pipeline = [
    dict(type="LoadPicture"),
    dict(type="FlipHorizontal", prob=0.5),
    dict(type="FitSquare", square=1024, mode="pad", interpolation="bilinear"),
    dict(type="PackValue"),
]
test_pipeline = [
    dict(type="LoadPicture"),
    dict(type="FitSquare", square=1024, mode="pad", interpolation="bilinear"),
    dict(type="PackValue"),
]
table = dict(
    type="ValueDataset",
    data_root=data_root,
    ann_file="training_set_pixel_size_and_HC.csv",
    img_prefix="training_set",
    file_column="filename",
    value="head circumference (mm)",
    spacing_column="pixel size(mm)",
    quantity="length",
    unit="mm",
    group_pattern=r"^(\d{3})_",
    missing="skip",
    test_share=0.3,
    val_share=0.1,
)

train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type="ResumableInfiniteSampler"),
    dataset=dict(part="train", pipeline=train_pipeline, **table),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(part="val", pipeline=test_pipeline, test_mode=True, **table),
)
test_dataloader = dict(
    batch_size=4,
    num_workers=4,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(part="test", pipeline=test_pipeline, test_mode=True, **table),
)
