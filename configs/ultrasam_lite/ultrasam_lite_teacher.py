"""The last part of UltraSam-lite's training: as ultrasam_lite_boxes.py, from its result, with a stronger teacher.

    python tools/train.py configs/ultrasam_lite/ultrasam_lite_teacher.py --amp --cfg-options model.weights=CHECKPOINT
"""

_base_ = ["./ultrasam_lite_boxes.py"]

iterations = 220
model = dict(teacher=dict(weight=10.0))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=30, end=iterations, eta_min=1e-6),
]
train_cfg = dict(max_iters=iterations, val_interval=iterations)
