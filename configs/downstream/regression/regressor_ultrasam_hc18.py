"""Head circumference (HC18) with UltraSam's ViT-B, all of which trains."""

_base_ = ["./_base_/regressor.py", "./_base_/hc18.py"]

model = dict(
    quantity="length",
    backbone=dict(type="SamBackbone", arch="vit_b", image_size=1024, weights=None),
)
