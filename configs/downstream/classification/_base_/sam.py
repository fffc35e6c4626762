"""SAM's ViT-B (sam_vit_b_01ec64.pth)."""

_base_ = ["./classifier.py"]

model = dict(backbone=dict(type="SamBackbone", arch="vit_b", image_size=1024, weights=None))
