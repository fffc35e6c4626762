"""SAMUS on SAM ViT-B, US-43d: row "SAMUS" of the paper's Table 2; 39.7 M numbers train. Points only.

Images are squashed to 256 pixels, masks have 128. `image_size` is the base's; SAMUS's own is the adapter's:

    tools/dist_train.sh configs/adapters/samus_vit-b_4xb8-30k_us43d.py 4 \
        --cfg-options model.weights=sam_vit_b_01ec64.pth
    tools/dist_test.sh configs/adapters/samus_vit-b_4xb8-30k_us43d.py CHECKPOINT 4 --prompt point
"""

_base_ = ["../ultrasam/ultrasam_vit-b_4xb8-30k_us43d.py"]

# The published decoder gives one mask, in one pass.
model = dict(
    method="samus", adapter=dict(image_size=256, cnn_widths=[64, 128, 256]), passes=["single"]
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
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(
    dataset=dict(datasets=[{**leaf, "pipeline": test_pipeline} for leaf in _base_.test_dataloader.dataset.datasets])
)
custom_hooks = [dict(type="WeightFileHook")]
