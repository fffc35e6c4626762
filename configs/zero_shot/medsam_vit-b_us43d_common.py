"""MedSAM prepared like SAM and UltraSam, mask token 0, boxes only: for comparison, not what MedSAM was made for.

Expects medsam_vit_b.pth (https://github.com/bowang-lab/MedSAM). Its own recipe is medsam_vit-b_us43d.py.
"""

_base_ = "../ultrasam/ultrasam_vit-b_4xb8-30k_us43d.py"

model = dict(passes=["single"])
# It was never trained with points.
supported_prompts = ["box"]
val_dataloader = dict(dataset=dict(prompt="box"))
test_dataloader = dict(
    dataset=dict(datasets=[{**leaf, "prompt": "box"} for leaf in _base_.test_dataloader.dataset.datasets])
)
