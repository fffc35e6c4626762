"""BUS-BRA: benign and malignant breast lesions, test fold 1, training folds 2 to 4; the class of each object.

Prepared with `python -m data_prep convert bus_bra`, in squares of 1024 pixels. ULTRASAM_DATA names the folder; without
it, data/us43d below the working directory.
"""

data_root = "{{$ULTRASAM_DATA:data/us43d}}"
classes = ["benign", "malignant"]

train_pipeline = [
    dict(type="LoadUltrasound"),
    dict(type="FlipHorizontal", prob=0.5),
    dict(type="FitSquare", square=1024, mode="pad", interpolation="bilinear"),
    dict(type="SimulatePrompts", point_share=0.5, box_jitter=0.05),
    dict(type="PackPromptedClass"),
]
test_pipeline = [
    dict(type="LoadUltrasound"),
    dict(type="FitSquare", square=1024, mode="pad", interpolation="bilinear"),
    dict(type="SimulatePrompts"),
    dict(type="PackPromptedClass"),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type="ResumableInfiniteSampler"),  # "BalancedClassSampler" shows all classes equally often
    dataset=dict(
        type="PromptedClassDataset",
        data_root=data_root,
        ann_file="bus_bra/annotations/train.bus_bra.json",
        classes=classes,
        pipeline=train_pipeline,
        prompt="train",
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="PromptedClassDataset",
        data_root=data_root,
        ann_file="bus_bra/annotations/val.bus_bra.json",
        classes=classes,
        pipeline=test_pipeline,
        prompt="point",
        test_mode=True,
    ),
)
test_dataloader = dict(
    batch_size=4,
    num_workers=4,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="PromptedClassDataset",
        data_root=data_root,
        ann_file="bus_bra/annotations/test.bus_bra.json",
        classes=classes,
        pipeline=test_pipeline,
        prompt="point",
        test_mode=True,
    ),
)
