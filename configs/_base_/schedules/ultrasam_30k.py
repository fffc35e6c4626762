"""The schedule of the paper: 30,000 iterations of AdamW, divided by ten at 20,000 and 28,000."""

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, weight_decay=1e-4, fused="auto"),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    accumulative_counts=1,
)

param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=False, begin=0, end=30000, milestones=[20000, 28000], gamma=0.1),
]

train_cfg = dict(type="IterBasedTrainLoop", max_iters=30000, val_interval=2000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
