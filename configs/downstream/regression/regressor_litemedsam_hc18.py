"""Head circumference (HC18) with LiteMedSAM, for a CPU: the encoder's neck trains.

What the frozen stages give of each image and its mirror image is kept on disk (2.6 MB each).

    ULTRASAM_HC18=HC18 python tools/train.py configs/downstream/regression/regressor_litemedsam_hc18.py
    ULTRASAM_HC18=HC18 python tools/test.py configs/downstream/regression/regressor_litemedsam_hc18.py CHECKPOINT
"""

_base_ = ["./_base_/regressor.py", "./_base_/hc18.py"]

iterations = 120

square = dict(type="FitSquare", square=256, mode="pad", interpolation="area")
train_pipeline = [dict(type="LoadPicture"), dict(type="FlipHorizontal", prob=0.5), square, dict(type="PackValue")]
test_pipeline = [dict(type="LoadPicture"), square, dict(type="PackValue")]
train_dataloader = dict(num_workers=1, pin_memory=False, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(pipeline=test_pipeline))

model = dict(
    quantity="length",
    backbone=dict(type="SamBackbone", arch="tiny_vit", image_size=256, weights="litemedsam"),
    trained_stages=1,
    cache_dir="work_dirs/embeddings",
)
optim_wrapper = dict(
    # The linear layer starts near zero and has few steps.
    optimizer=dict(lr=1e-2, weight_decay=1e-2), paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.01)))
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=20, end=iterations, eta_min=1e-6),
]
train_cfg = dict(max_iters=iterations, val_interval=iterations)
default_hooks = dict(checkpoint=dict(interval=60))
