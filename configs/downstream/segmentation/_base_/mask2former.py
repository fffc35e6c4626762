"""Mask2Former as the paper trains it: 8,000 iterations of 8 images, everything else as MMDetection has it for COCO.

The decoders start at random. COCO's instead: model.decoder_weights=mask2former_r50_8xb2-lsj-50e_coco_...pth. The
weights of the backbone are given with --cfg-options model.backbone.weights=FILE.
"""

_base_ = ["../../../_base_/default_runtime.py"]

model = dict(
    type="Mask2FormerDetector",
    pyramid="taps",  # "simple" is ViTDet's pyramid, "none" the four maps of stride 16 of the published results
    head=dict(queries=100, encoder_layers=6, decoder_layers=9, points=12544),
    decoder_weights=None,
    max_per_image=100,
)

iterations = 8000
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, weight_decay=0.05, eps=1e-8, betas=(0.9, 0.999), fused="auto"),
    constructor="LayerDecayConstructor",
    paramwise_cfg=dict(
        backbone_lr_mult=0.1,
        layer_decay=1.0,
        no_decay_1d=False,
        no_decay_norms=True,
        no_decay_names=("query_embed", "query_feat", "level_embed"),
    ),
    clip_grad=dict(max_norm=0.01, norm_type=2),
    accumulative_counts=1,
)
# Divided by ten at the same parts of the training as for COCO (327,778 and 355,092 of 368,750).
param_scheduler = [dict(type="MultiStepLR", by_epoch=False, begin=0, end=iterations, milestones=[7111, 7704], gamma=0.1)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations, val_interval=1000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(checkpoint=dict(interval=1000))

val_evaluator = dict(type="InstanceMetric")
test_evaluator = dict(type="InstanceMetric", intervals=1000)
