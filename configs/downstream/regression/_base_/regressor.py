"""Regression of one value for each image: mean of the output tokens and one linear layer, Huber's loss.

The weights of the backbone are given with --cfg-options model.backbone.weights=FILE.
"""

_base_ = ["../../../_base_/default_runtime.py"]

model = dict(type="ImageRegressor", loss="huber", huber_delta=1.0)

iterations = 2000
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, weight_decay=1e-4, fused="auto"),
    clip_grad=dict(max_norm=1.0, norm_type=2),
    accumulative_counts=1,
)
param_scheduler = [
    dict(type="MultiStepLR", by_epoch=False, begin=0, end=iterations, milestones=[1600], gamma=0.1),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations, val_interval=500)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(checkpoint=dict(interval=500))
# Mean and deviation of the values before training; per_object.csv, intervals and report.html after a test.
custom_hooks = [dict(type="LearnFromDataHook"), dict(type="WriteResultsHook")]

val_evaluator = dict(type="RegressionMetric", resamples=0)
test_evaluator = dict(type="RegressionMetric")
