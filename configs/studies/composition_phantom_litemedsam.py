"""The composition study on the phantom, as the paper's Figure 4: a SAM that never saw the data, three seeds.

LiteMedSAM's decoder trains on its frozen encoder, whose embeddings all runs share. About an hour on two cores:

    ultrasam phantom data/phantom
    python -m data_prep prepare data/phantom
    ultrasam study run configs/studies/composition_phantom_litemedsam.py --data data/phantom
    ultrasam study collect configs/studies/composition_phantom_litemedsam.py --data data/phantom --score dice
"""

_base_ = "../demo/litemedsam_decoder_phantom.py"

iterations = 200

model = dict(trained_stages=0)
train_dataloader = dict(num_workers=1, batch_size=4)
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
