"""Hybrid training (paper section 3.4, Table 5): every batch is half US-43d, half SA-1B.

SA-1B is read as it comes, folders or tar shards below ULTRASAM_SA1B (default data/sa1b).
"""

_base_ = ["../ultrasam/ultrasam_vit-b_4xb8-30k_us43d.py"]

data_root = "{{$ULTRASAM_DATA:data/us43d}}"
train_pipeline = [
    dict(type="LoadUltrasound"),
    dict(type="FlipHorizontal", prob=0.5),
    dict(type="FitSquare", square=1024, mode="pad", interpolation="bilinear", target_size=256),
    dict(type="SimulatePrompts", point_share=0.5, box_jitter=0.05),
    dict(type="PackPrompted"),
]
train_dataloader = dict(
    sampler=dict(type="MixedSampler", by="source", ratios=[1, 1]),
    dataset=dict(
        _delete_=True,
        type="ConcatDataset",
        datasets=[
            dict(
                type="PromptedCocoDataset",
                data_root=data_root,
                ann_file="train.agnostic.json",
                pipeline=train_pipeline,
                prompt="train",
                metainfo=dict(source="us43d"),
            ),
            # An image of SA-1B has a hundred masks; a batch of ultrasound has two or three an image.
            dict(
                type="Sa1bDataset",
                root="{{$ULTRASAM_SA1B:data/sa1b}}",
                pipeline=train_pipeline,
                prompt="train",
                max_objects=8,
            ),
        ],
    ),
)
