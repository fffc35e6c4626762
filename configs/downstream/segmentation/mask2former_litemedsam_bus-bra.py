"""Mask2Former with LiteMedSAM's frozen encoder on BUS-BRA (training folds 2 to 4, test fold 1), for a CPU.

256 pixels, small decoders, ViTDet's pyramid from the encoder's one map (stride 4). The encoder's map of every image is
kept on disk (2.1 MB each), so that it is computed once; there are no mirrored images:

    python -m data_prep convert bus_bra --source BUSBRA --out data/us43d
    python tools/train.py configs/downstream/segmentation/mask2former_litemedsam_bus-bra.py
    python tools/test.py configs/downstream/segmentation/mask2former_litemedsam_bus-bra.py CHECKPOINT
"""

_base_ = ["./_base_/mask2former.py", "./_base_/bus_bra.py"]

iterations = 240

train_pipeline = [
    dict(type="LoadUltrasound"),
    dict(type="FitSquare", square=256, mode="pad", interpolation="area", target_size=256),
    dict(type="PackInstances"),
]
test_pipeline = [
    dict(type="LoadUltrasound"),
    dict(type="FitSquare", square=256, mode="pad", interpolation="area"),
    dict(type="PackInstances"),
]
train_dataloader = dict(num_workers=1, pin_memory=False, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(pipeline=test_pipeline))

model = dict(
    classes={{_base_.classes}},
    backbone=dict(
        type="SamBackbone",
        arch="tiny_vit",
        image_size=256,
        weights="litemedsam",
        frozen=True,
        cache_dir="work_dirs/features",
    ),
    pyramid="simple",
    pyramid_channels=128,
    head=dict(
        queries=10, channels=128, encoder_layers=3, decoder_layers=3, encoder_mlp=256, decoder_mlp=512, points=4096
    ),
    max_per_image=10,
)
optim_wrapper = dict(optimizer=dict(lr=3e-4), clip_grad=dict(max_norm=0.1))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=40, end=iterations, eta_min=1e-6),
]
train_cfg = dict(max_iters=iterations, val_interval=iterations)
default_hooks = dict(checkpoint=dict(interval=120))
