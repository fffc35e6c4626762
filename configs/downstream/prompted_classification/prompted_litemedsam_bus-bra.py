"""Prompted classification with LiteMedSAM on BUS-BRA (training folds 2 to 4, test fold 1), for a CPU.

E_o, prompt encoder and mask decoder are frozen; E_g's neck, the head and its transformer train. What frozen stages
give of each image is kept on disk (2.1 MB of E_o, 2.6 MB of E_g), so that it is computed once; there are no mirrored
images. Everything else is as for classifier_litemedsam_bus-bra.py, which sees no prompt.

    python -m data_prep convert bus_bra --source BUSBRA --out data/us43d
    python tools/train.py configs/downstream/prompted_classification/prompted_litemedsam_bus-bra.py
    python tools/test.py configs/downstream/prompted_classification/prompted_litemedsam_bus-bra.py CHECKPOINT --prompt box
"""

_base_ = ["./_base_/prompted_classifier.py", "./_base_/bus_bra.py"]

iterations = 240

square = dict(type="FitSquare", square=256, mode="pad", interpolation="area")
train_pipeline = [
    dict(type="LoadUltrasound"),
    square,
    dict(type="SimulatePrompts", point_share=0.5, box_jitter=0.05),
    dict(type="PackPromptedClass"),
]
test_pipeline = [
    dict(type="LoadUltrasound"),
    square,
    dict(type="SimulatePrompts"),
    dict(type="PackPromptedClass"),
]
train_dataloader = dict(num_workers=1, pin_memory=False, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(pipeline=test_pipeline))

model = dict(
    classes={{_base_.classes}},
    arch="tiny_vit",
    image_size=256,
    weights="litemedsam",
    trained_stages=1,
    cache_dir="work_dirs/embeddings",
    class_loss=dict(form="cross_entropy", class_weights="balanced"),
)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=1e-2),
    paramwise_cfg=dict(custom_keys={"head.classify": dict(lr_mult=10.0)}),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=30, end=iterations, eta_min=1e-6),
]
train_cfg = dict(max_iters=iterations, val_interval=iterations)
default_hooks = dict(checkpoint=dict(interval=120))
