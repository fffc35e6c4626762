"""UltraSam's ViT-B (UltraSam.pth, or a training of ours)."""

_base_ = ["./classifier.py"]

model = dict(backbone=dict(type="SamBackbone", arch="vit_b", image_size=1024, weights=None))
