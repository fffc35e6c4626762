"""SAM's ViT-B (sam_vit_b_01ec64.pth), blocks 2, 5, 8 and 11."""

_base_ = ["./mask2former.py"]

model = dict(backbone=dict(type="SamBackbone", arch="vit_b", image_size=1024, weights=None))
