"""Prompted classification as in the paper's section 2.3: E_o frozen, E_g, the head and its transformer train.

Both encoders start from the file that is given with --weights. Against unequal classes:
model.class_loss.class_weights=balanced, or train_dataloader.sampler.type=BalancedClassSampler.
"""

_base_ = ["../../../_base_/default_runtime.py"]

model = dict(
    type="PromptedClassifier",
    arch="vit_b",
    image_size=1024,
    weights=None,
    object_encoder=True,
    global_encoder="own",
    global_vector=True,
    prompt=True,
    head_start="mask_decoder",
    dropout=0.1,
    chunk=16,
    class_loss=dict(form="focal", gamma=2.0, class_weights=None),
)

iterations = 2000
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, weight_decay=1e-4, fused="auto"),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    accumulative_counts=1,
)
param_scheduler = [
    dict(type="MultiStepLR", by_epoch=False, begin=0, end=iterations, milestones=[1600], gamma=0.1),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations, val_interval=500)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(checkpoint=dict(interval=500))
# Class counts for balanced weights before training; per_object.csv, intervals and report.html after a test.
custom_hooks = [dict(type="LearnFromDataHook"), dict(type="WriteResultsHook")]

val_evaluator = dict(type="ClassificationMetric", resamples=0)
test_evaluator = dict(type="ClassificationMetric")
