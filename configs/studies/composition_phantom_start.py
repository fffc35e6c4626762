"""Where the runs of composition_phantom.py start: the small ViT on the phantom's sets that are related to no test.

The paper's runs start from SAM, which knows masks but no ultrasound; from random weights 150 steps teach nothing.

    ultrasam phantom data/phantom --images 900 && python -m data_prep prepare data/phantom
    python tools/train.py configs/studies/composition_phantom_start.py --exclude phantom_breast phantom_ovary
"""

_base_ = "../demo/ultrasam_vit-tiny_phantom.py"

iterations = 1500
# Half the size of the demo's, so that 27 trainings take less than an hour on two cores.
square = dict(type="FitSquare", square=128, mode="pad", interpolation="bilinear")
train_pipeline = [
    dict(type="LoadUltrasound"),
    dict(type="FlipHorizontal", prob=0.5),
    dict(target_size=32, **square),
    dict(type="SimulatePrompts", point_share=0.5, box_jitter=0.05),
    dict(type="PackPrompted"),
]
test_pipeline = [dict(type="LoadUltrasound"), square, dict(type="SimulatePrompts"), dict(type="PackPrompted")]
model = dict(image_size=128)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=100, end=iterations, eta_min=1e-6),
]
train_cfg = dict(max_iters=iterations, val_interval=iterations)
default_hooks = dict(checkpoint=dict(interval=500))
