"""The small ViT on BUS-BRA, for the adaptation methods to be compared on real images."""

_base_ = [
    "../_base_/datasets/bus_bra_256.py",
    "../_base_/schedules/ultrasam_30k.py",
    "../_base_/default_runtime.py",
]

square = dict(type="FitSquare", square=256, mode="pad", interpolation="bilinear")
model = dict(
    type="UltraSamDetector",
    arch="vit_tiny",
    image_size=256,
    passes=["single", "multi"],
    decode_chunk=16,
    dropout=0.1,
)
train_pipeline = [
    dict(type="LoadUltrasound"),
    dict(type="FlipHorizontal", prob=0.5),
    dict(target_size=64, **square),
    dict(type="SimulatePrompts", point_share=0.5, box_jitter=0.05),
    dict(type="PackPrompted"),
]
test_pipeline = [
    dict(type="LoadUltrasound"),
    square,
    dict(type="SimulatePrompts"),
    dict(type="PackPrompted"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
