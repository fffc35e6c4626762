"""MedSAM under its own recipe: whole square, bicubic, pixels scaled to 0-1, mask token 0, boxes only.

Expects medsam_vit_b.pth (https://github.com/bowang-lab/MedSAM):

    python tools/test.py configs/zero_shot/medsam_vit-b_us43d.py medsam_vit_b.pth --prompt box
"""

_base_ = "medsam_vit-b_us43d_common.py"

model = dict(preprocessing=dict(mode="squash", scaling="min_max", interpolation="bicubic"))
square = dict(type="FitSquare", square=1024, mode="squash", interpolation="bicubic")
test_pipeline = [
    dict(type="LoadUltrasound"),
    square,
    dict(type="SimulatePrompts"),
    dict(type="PackPrompted"),
]
train_pipeline = [
    dict(type="LoadUltrasound"),
    dict(type="FlipHorizontal", prob=0.5),
    dict(target_size=256, **square),
    dict(type="SimulatePrompts", point_share=0.0),
    dict(type="PackPrompted"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(
    dataset=dict(datasets=[{**leaf, "pipeline": test_pipeline} for leaf in _base_.test_dataloader.dataset.datasets])
)
