"""SAM ViT-B as it is, one pass of mask tokens 1 to 3, points and boxes.

Expects sam_vit_b_01ec64.pth (https://github.com/facebookresearch/segment-anything):

    python tools/test.py configs/zero_shot/sam_vit-b_us43d.py sam_vit_b_01ec64.pth --prompt box
"""

_base_ = "../ultrasam/ultrasam_vit-b_4xb8-30k_us43d.py"

model = dict(passes=["multi"])
