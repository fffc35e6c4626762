"""The ablation without refinement: one pass of mask tokens 1 to 3.

Train from sam_vit_b_01ec64.pth; weights that were trained with refinement expect a mask prompt for these tokens.
"""

_base_ = "ultrasam_vit-b_4xb8-30k_us43d.py"

model = dict(passes=["multi"])
