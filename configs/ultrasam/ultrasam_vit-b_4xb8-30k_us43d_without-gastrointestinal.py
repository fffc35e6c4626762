"""UltraSam* of the paper for GIST514-DB: trained without gastrointestinal images, tested on it.

Train from sam_vit_b_01ec64.pth as ultrasam_vit-b_4xb8-30k_us43d.py; `python -m data_prep prepare` writes the lists.
"""

_base_ = "ultrasam_vit-b_4xb8-30k_us43d.py"

train_dataloader = dict(dataset=dict(ann_file="train.without_gastrointestinal.json"))
val_dataloader = dict(dataset=dict(ann_file="val.without_gastrointestinal.json"))
test_dataloader = dict(
    dataset=dict(
        datasets=[
            leaf for leaf in _base_.test_dataloader.dataset.datasets if leaf["ann_file"].startswith("gist514_db/")
        ]
    )
)
