"""The composition study on the phantom: a small ViT from random weights, three seeds.

ultrasam phantom data/phantom
python -m data_prep prepare data/phantom
ultrasam study run configs/studies/composition_phantom.py --data data/phantom
ultrasam study collect configs/studies/composition_phantom.py --data data/phantom --score dice
"""

_base_ = "../demo/ultrasam_vit-tiny_phantom.py"

iterations = 150
# Half the size of the demo's, so that fifteen trainings take less than half an hour on two cores.
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
            {
                **_base_.test_dataloader.dataset,
                "ann_file": f"{slug}/annotations/test.{slug}.agnostic.json",
                "pipeline": test_pipeline,
            }
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
