"""The phantom at 256 pixels, made with `ultrasam phantom data/phantom`.

ULTRASAM_PHANTOM names the folder; without it, data/phantom below the working directory.
"""

data_root = "{{$ULTRASAM_PHANTOM:data/phantom}}"
square = dict(type="FitSquare", square=256, mode="pad", interpolation="area")

train_pipeline = [
    dict(type="LoadUltrasound"),
    dict(type="FlipHorizontal", prob=0.5),
    dict(target_size=256, **square),
    dict(type="SimulatePrompts", point_share=0.5, box_jitter=0.05),
    dict(type="PackPrompted"),
]
test_pipeline = [
    dict(type="LoadUltrasound"),
    square,
    dict(type="SimulatePrompts"),
    dict(type="PackPrompted"),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="ResumableInfiniteSampler"),
    dataset=dict(
        type="PromptedCocoDataset",
        data_root=data_root,
        ann_file="train.agnostic.json",
        pipeline=train_pipeline,
        prompt="train",
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="PromptedCocoDataset",
        data_root=data_root,
        ann_file="val.agnostic.json",
        pipeline=test_pipeline,
        prompt="point",
        test_mode=True,
    ),
)
test_dataloader = dict(
    batch_size=8,
    num_workers=1,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="PromptedCocoDataset",
        data_root=data_root,
        ann_file="test.agnostic.json",
        pipeline=test_pipeline,
        prompt="point",
        test_mode=True,
    ),
)
val_evaluator = dict(type="PromptedMaskMetric")
test_evaluator = dict(type="PromptedMaskMetric")
