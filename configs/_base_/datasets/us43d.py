"""US-43d as `python -m data_prep` writes it, at 1024 pixels; tests on BUS-BRA, MMOTU2D and GIST514-DB.

ULTRASAM_DATA names the folder; without it, data/us43d below the working directory.
"""

data_root = "{{$ULTRASAM_DATA:data/us43d}}"
square = dict(type="FitSquare", square=1024, mode="pad", interpolation="bilinear")

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
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
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
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
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
    batch_size=1,
    num_workers=4,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="ConcatDataset",
        datasets=[
            dict(
                type="PromptedCocoDataset",
                data_root=data_root,
                ann_file=f"{slug}/annotations/test.{slug}.agnostic.json",
                pipeline=test_pipeline,
                prompt="point",
                test_mode=True,
            )
            for slug in ("bus_bra", "mmotu_2d", "gist514_db")
        ],
    ),
)
val_evaluator = dict(type="PromptedMaskMetric")
test_evaluator = dict(type="PromptedMaskMetric")
