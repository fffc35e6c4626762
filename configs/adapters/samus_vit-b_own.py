"""SAMUS on SAM ViT-B for your own COCO files; points only. See lora_vit-b_own.py."""

_base_ = ["lora_vit-b_own.py"]

model = dict(
    method="samus", adapter=dict(_delete_=True, image_size=256, cnn_widths=[64, 128, 256]), passes=["single"]
)
supported_prompts = ["point"]

square = dict(type="FitSquare", square=256, mode="squash", interpolation="bilinear")
train_pipeline = [
    dict(type="LoadUltrasound"),
    dict(type="FlipHorizontal", prob=0.5),
    dict(target_size=128, **square),
    dict(type="SimulatePrompts", point_share=1.0),
    dict(type="PackPrompted"),
]
test_pipeline = [
    dict(type="LoadUltrasound"),
    square,
    dict(type="SimulatePrompts"),
    dict(type="PackPrompted"),
]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
recompute_modules = None
