"""DINOv2's ViT-B/14 (dinov2_vitb14_pretrain.pth), frozen as in the paper; only the pyramid and the decoders train.

The paper's was trained anew on US-43d and is not public. 1024 pixels are no multiple of 14, 1036 are.
"""

_base_ = ["./mask2former.py"]

train_pipeline_1036 = [
    dict(type="LoadUltrasound"),
    dict(type="FlipHorizontal", prob=0.5),
    dict(type="JitterSquare", square=1036, smallest=0.1, largest=2.0, mode="pad", interpolation="bilinear"),
    dict(type="PackInstances"),
]
test_pipeline_1036 = [
    dict(type="LoadUltrasound"),
    dict(type="FitSquare", square=1036, mode="pad", interpolation="bilinear"),
    dict(type="PackInstances"),
]

model = dict(
    backbone=dict(
        type="Dinov2Backbone",
        image_size=1036,
        weights=None,
        frozen=True,
        preprocessing=dict(interpolation="bilinear"),
    ),
)
