"""USFM's ViT-B/16 (USFM_latest.pth)."""

_base_ = ["./classifier.py"]

model = dict(backbone=dict(type="UsfmBackbone", image_size=1024, weights=None, preprocessing=dict(interpolation="bilinear")))
