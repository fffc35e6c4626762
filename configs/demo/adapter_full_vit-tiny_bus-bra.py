"""The ways to adapt SAM side by side on BUS-BRA, small ViT: everything trains. The others change only what trains.

The base is the small ViT trained on the phantom. tools/compare_adapters.py runs all five and writes the table:

    python tools/train.py configs/demo/ultrasam_vit-tiny_phantom.py --work-dir work_dirs/base
    python tools/train.py configs/demo/adapter_full_vit-tiny_bus-bra.py --cfg-options model.weights=BASE
"""

_base_ = ["ultrasam_vit-tiny_bus-bra.py"]

iterations = 1000

model = dict(weights=None, method="full")
train_dataloader = dict(batch_size=8)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=50, end=iterations, eta_min=1e-6),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations, val_interval=iterations)
default_hooks = dict(checkpoint=dict(interval=250))
custom_hooks = [dict(type="WeightFileHook")]
