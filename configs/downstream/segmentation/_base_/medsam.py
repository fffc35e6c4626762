"""MedSAM's ViT-B (medsam_vit_b.pth), blocks 2, 5, 8 and 11.

Pixels as for SAM, so that all backbones see the same images. MedSAM's own are squashed squares scaled to 0 - 1:
preprocessing=dict(mode="squash", interpolation="bicubic", scaling="min_max") and the same in the pipelines.
"""

_base_ = ["./mask2former.py"]

model = dict(backbone=dict(type="SamBackbone", arch="vit_b", image_size=1024, weights=None))
