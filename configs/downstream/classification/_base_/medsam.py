"""MedSAM's ViT-B (medsam_vit_b.pth), with pixels as for SAM, so that all backbones see the same images."""

_base_ = ["./classifier.py"]

model = dict(backbone=dict(type="SamBackbone", arch="vit_b", image_size=1024, weights=None))
