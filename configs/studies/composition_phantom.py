"""The composition study on the phantom: a small ViT, three seeds, from one start that knows neither family.

    ultrasam phantom data/phantom --images 900 && python -m data_prep prepare data/phantom
    python tools/train.py configs/studies/composition_phantom_start.py --exclude phantom_breast phantom_ovary
    START=load_from=work_dirs/composition_phantom_start/iter_1500.pth
    ultrasam study run configs/studies/composition_phantom.py --data data/phantom --cfg-options $START
    ultrasam study collect configs/studies/composition_phantom.py --data data/phantom --score dice
"""

_base_ = "composition_phantom_start.py"

iterations = 150
optim_wrapper = dict(optimizer=dict(lr=3e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=20),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=20, end=iterations, eta_min=1e-6),
]
train_cfg = dict(max_iters=iterations, val_interval=iterations)
default_hooks = dict(checkpoint=dict(interval=iterations))
custom_hooks = [dict(type="PerDatasetHook")]

families = dict(breast="phantom_breast", ovarian="phantom_ovary")
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="ConcatDataset",
        datasets=[
            {**_base_.test_dataloader.dataset, "ann_file": f"{slug}/annotations/test.{slug}.agnostic.json"}
            for slug in families.values()
        ],
    )
)

study = dict(
    families=families,
    shares=[0, 10, 30, 50, 100],
    seeds=[0, 1, 2],
    prompts=["point", "box"],
)
