"""Classifier with LiteMedSAM on BUS-BRA (training folds 2 to 4, test fold 1), for a CPU.

The encoder's neck trains. What the frozen stages give of each image is kept on disk (2.6 MB), so that it is computed
once; there are no mirrored images. The class weights are balanced. On a CPU with bfloat16, --amp is faster.

    python -m data_prep convert bus_bra --source BUSBRA --out data/us43d
    python tools/train.py configs/downstream/classification/classifier_litemedsam_bus-bra.py
    python tools/test.py configs/downstream/classification/classifier_litemedsam_bus-bra.py CHECKPOINT
"""

_base_ = ["./_base_/classifier.py", "./_base_/bus_bra.py"]

iterations = 240

pipeline = [
    dict(type="LoadPicture"),
    dict(type="FitSquare", square=256, mode="pad", interpolation="area"),
    dict(type="PackClass"),
]
train_dataloader = dict(num_workers=1, pin_memory=False, dataset=dict(pipeline=pipeline))
val_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(pipeline=pipeline))
test_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(pipeline=pipeline))

model = dict(
    classes={{_base_.classes}},
    backbone=dict(type="SamBackbone", arch="tiny_vit", image_size=256, weights="litemedsam"),
    trained_stages=1,
    cache_dir="work_dirs/embeddings",
    class_loss=dict(form="cross_entropy", class_weights="balanced"),
)
optim_wrapper = dict(
    optimizer=dict(lr=1e-3, weight_decay=1e-2),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=30, end=iterations, eta_min=1e-6),
]
train_cfg = dict(max_iters=iterations, val_interval=iterations)
default_hooks = dict(checkpoint=dict(interval=120))
