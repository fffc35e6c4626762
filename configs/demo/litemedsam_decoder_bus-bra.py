"""Teach LiteMedSAM's prompt encoder and mask decoder points, boxes and refinement on BUS-BRA (folds 2 to 4).

The encoder is frozen and its embeddings are kept on disk, so this runs on a laptop:

    python -m data_prep convert bus_bra --source BUSBRA --out data/us43d
    python tools/train.py configs/demo/litemedsam_decoder_bus-bra.py --amp
    python tools/test.py configs/demo/litemedsam_decoder_bus-bra.py CHECKPOINT --prompt point
"""

_base_ = [
    "../_base_/models/litemedsam.py",
    "../_base_/datasets/bus_bra_256.py",
    "../_base_/schedules/ultrasam_30k.py",
    "../_base_/default_runtime.py",
]

iterations = 1000

# No mirrored copies: each image is then encoded once, which on two cores takes as long as 400 steps.
train_pipeline = [
    dict(type="LoadUltrasound"),
    dict(type="FitSquare", square=256, mode="pad", interpolation="area", target_size=256),
    dict(type="SimulatePrompts", point_share=0.5, box_jitter=0.05),
    dict(type="PackPrompted"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

model = dict(
    passes=["single", "multi"],
    # Its tokens 1 to 3 were never trained; started from token 0 they refine from the first step.
    copy_single_mask_token=True,
    freeze=["image_encoder"],
    cache_dir="work_dirs/embeddings",
    loss=dict(iou_targets="all"),
)
optim_wrapper = dict(optimizer=dict(lr=3e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=100, end=iterations, eta_min=1e-6),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations, val_interval=iterations)
default_hooks = dict(checkpoint=dict(interval=500))
