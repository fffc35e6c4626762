"""BUS-BRA at 256 pixels, prepared with `python -m data_prep convert bus_bra`: test fold 1, training folds 2 to 4.

ULTRASAM_DATA names the folder; without it, data/us43d below the working directory.
"""

data_root = "{{$ULTRASAM_DATA:data/us43d}}"
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
        ann_file="bus_bra/annotations/train.bus_bra.agnostic.json",
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
        ann_file="bus_bra/annotations/val.bus_bra.agnostic.json",
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
        ann_file="bus_bra/annotations/test.bus_bra.agnostic.json",
        pipeline=test_pipeline,
        prompt="point",
        test_mode=True,
    ),
)
val_evaluator = dict(type="PromptedMaskMetric")
test_evaluator = dict(type="PromptedMaskMetric")
