"""As adapter_full_vit-tiny_bus-bra.py, but SAMUS's new layers alone train; points only.

The branch of convolutions is a quarter as wide as published, as the small ViT is an eighth of SAM's.
"""

_base_ = ["adapter_full_vit-tiny_bus-bra.py"]

model = dict(method="samus", adapter=dict(image_size=256, cnn_widths=[16, 32, 64]), passes=["single"])
supported_prompts = ["point"]
optim_wrapper = dict(optimizer=dict(lr=1e-3))

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
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
