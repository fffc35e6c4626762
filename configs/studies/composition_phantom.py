"""The composition study on the phantom: a small ViT from random weights, three seeds.

ultrasam phantom data/phantom
python -m data_prep prepare data/phantom
ultrasam study run configs/studies/composition_phantom.py --data data/phantom
ultrasam study collect configs/studies/composition_phantom.py --data data/phantom --score dice
"""

_base_ = "../demo/ultrasam_vit-tiny_phantom.py"

iterations = 300
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=30, end=iterations, eta_min=1e-6),
]
train_cfg = dict(max_iters=iterations, val_interval=iterations)

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
