"""SAM ViT-B as it is, one pass of mask tokens 1 to 3: give sam_vit_b_01ec64.pth to tools/test.py."""

_base_ = "../ultrasam/ultrasam_vit-b_4xb8-30k_us43d.py"

model = dict(passes=["multi"])
