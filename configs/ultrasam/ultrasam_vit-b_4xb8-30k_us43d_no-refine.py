"""The ablation without refinement: one pass of mask tokens 1 to 3."""

_base_ = "ultrasam_vit-b_4xb8-30k_us43d.py"

model = dict(passes=["multi"])
