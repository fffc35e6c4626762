"""GIST514-DB: leiomyomas and stromal tumours, split 0 of its authors; the class of each image. Images without a lesion have no class and are left out.

Prepared with `python -m data_prep convert gist514_db`, in squares of 1024 pixels. ULTRASAM_DATA names the folder; without
it, data/us43d below the working directory.
"""

data_root = "{{$ULTRASAM_DATA:data/us43d}}"
classes = ["lmym", "gist"]

train_pipeline = [
    dict(type="LoadPicture"),
    dict(type="FlipHorizontal", prob=0.5),
    dict(type="FitSquare", square=1024, mode="pad", interpolation="bilinear"),
    dict(type="PackClass"),
]
test_pipeline = [
    dict(type="LoadPicture"),
    dict(type="FitSquare", square=1024, mode="pad", interpolation="bilinear"),
    dict(type="PackClass"),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type="ResumableInfiniteSampler"),  # "BalancedClassSampler" shows all classes equally often
    dataset=dict(
        type="ClassDataset",
        data_root=data_root,
        ann_file="gist514_db/annotations/train.gist514_db.json",
        classes=classes,
        pipeline=train_pipeline,
        unlabelled="skip",
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="ClassDataset",
        data_root=data_root,
        ann_file="gist514_db/annotations/val.gist514_db.json",
        classes=classes,
        pipeline=test_pipeline,
        unlabelled="skip",
        test_mode=True,
    ),
)
test_dataloader = dict(
    batch_size=4,
    num_workers=4,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="ClassDataset",
        data_root=data_root,
        ann_file="gist514_db/annotations/test.gist514_db.json",
        classes=classes,
        pipeline=test_pipeline,
        unlabelled="skip",
        test_mode=True,
    ),
)
