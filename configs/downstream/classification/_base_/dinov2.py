"""DINOv2's ViT-B/14 (dinov2_vitb14_pretrain.pth), frozen as in the paper; only the linear layer trains.

The paper's was trained anew on US-43d and is not public. 1024 pixels are no multiple of 14, 1036 are.
"""

_base_ = ["./classifier.py"]

train_pipeline_1036 = [
    dict(type="LoadPicture"),
    dict(type="FlipHorizontal", prob=0.5),
    dict(type="FitSquare", square=1036, mode="pad", interpolation="bilinear"),
    dict(type="PackClass"),
]
test_pipeline_1036 = [
    dict(type="LoadPicture"),
    dict(type="FitSquare", square=1036, mode="pad", interpolation="bilinear"),
    dict(type="PackClass"),
]

model = dict(backbone=dict(
        type="Dinov2Backbone",
        image_size=1036,
        weights=None,
        frozen=True,
        preprocessing=dict(interpolation="bilinear"),
    ))
