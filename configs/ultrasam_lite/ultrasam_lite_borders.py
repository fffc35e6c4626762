"""UltraSam-lite, fourth part: masks of the right size.

Starts from the mean of the third part (ultrasam_lite.py, ultrasam_lite_more-busi.py), packed. The focal loss weighs the
foreground by 0.25 there, which draws the borders inwards; here both sides count alike.

    python tools/train.py configs/ultrasam_lite/ultrasam_lite_borders.py --amp --cfg-options model.weights=PACKED
"""

_base_ = ["./ultrasam_lite.py"]

iterations = 500
model = dict(loss=dict(focal_alpha=0.5))
optim_wrapper = dict(optimizer=dict(lr=5e-5))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=30, end=iterations, eta_min=1e-6),
]
train_cfg = dict(max_iters=iterations, val_interval=iterations)
