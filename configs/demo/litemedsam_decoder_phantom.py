"""The demo: LiteMedSAM's decoder on the phantom, a few minutes on two cores.

    ultrasam phantom data/phantom
    python tools/train.py configs/demo/litemedsam_decoder_phantom.py --amp
"""

_base_ = [
    "../_base_/models/litemedsam.py",
    "../_base_/datasets/phantom_256.py",
    "../_base_/schedules/ultrasam_30k.py",
    "../_base_/default_runtime.py",
]

iterations = 270

model = dict(
    passes=["single", "multi"],
    copy_single_mask_token=True,
    freeze=["image_encoder"],
    # The neck and the last block adapt too; what the frozen stages give is kept on disk.
    trained_stages=2,
    cache_dir="work_dirs/embeddings",
    loss=dict(iou_targets="all"),
)
# Without the mirrored copies each image is encoded once, which is where the demo's time goes.
train_pipeline = [
    dict(type="LoadUltrasound"),
    dict(type="FitSquare", square=256, mode="pad", interpolation="area", target_size=256),
    dict(type="SimulatePrompts", point_share=0.5, box_jitter=0.05),
    dict(type="PackPrompted"),
]
train_dataloader = dict(batch_size=3, dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(
    optimizer=dict(lr=5e-4), paramwise_cfg=dict(custom_keys={"sam.image_encoder": dict(lr_mult=0.3)})
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=20),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=20, end=iterations, eta_min=1e-6),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations, val_interval=iterations)
default_hooks = dict(checkpoint=dict(interval=iterations), logger=dict(interval=20))
