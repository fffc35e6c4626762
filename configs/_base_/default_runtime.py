"""What every experiment shares: hooks, logging, checkpoints, the environment and the seed."""

default_scope = "mmdet"

default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(
        type="SafeCheckpointHook",
        by_epoch=False,
        interval=2000,
        max_keep_ckpts=2,
        save_best=None,
    ),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    progress=dict(type="ProgressHook"),
)
custom_hooks = []

env_cfg = dict(
    cudnn_benchmark=True,
    tf32=True,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="auto"),
)
randomness = dict(seed=0, deterministic=False)

visualizer = dict(
    type="Visualizer",
    name="visualizer",
    vis_backends=[dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")],
)
log_processor = dict(type="LogProcessor", window_size=50, by_epoch=False)
log_level = "INFO"

load_from = None
resume = False

# Speed and memory: torch.compile of modules, and recomputing their activations in the backward pass.
# Example: dict(modules=["sam.image_encoder"]) and ["sam.image_encoder.blocks.*"].
compile = None
recompute_modules = None
# Several processes: share weights, gradients and optimizer out among them (FSDP) instead of copying them to each (DDP).
# Example: dict(modules=["sam.image_encoder.blocks.*"]), or dict() for that.
fsdp = None
find_unused_parameters = False

# Choosing a checkpoint by the test split is refused unless this says so.
allow_test_selection = False
