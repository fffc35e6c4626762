"""LoRA on SAM ViT-B for your own COCO files, on one GPU of 12 GB or less.

ULTRASAM_DATA names a folder with train.json, val.json and test.json, whose file names start from it. `ultrasam
finetune` writes such a configuration for you, with the weights' own preprocessing:

    ULTRASAM_DATA=FOLDER python tools/train.py configs/adapters/lora_vit-b_own.py \
        --cfg-options model.weights=sam_vit_b_01ec64.pth
"""

_base_ = ["lora_vit-b_4xb8-30k_us43d.py"]

iterations = 2000
data_root = "{{$ULTRASAM_DATA:data/own}}"
leaf = _base_.val_dataloader.dataset

train_dataloader = dict(batch_size=2, num_workers=2, dataset=dict(data_root=data_root, ann_file="train.json"))
val_dataloader = dict(num_workers=2, dataset=dict(data_root=data_root, ann_file="val.json"))
test_dataloader = dict(
    num_workers=2,
    dataset=dict(_delete_=True, **{**leaf, "data_root": data_root, "ann_file": "test.json"}),
)
# What the blocks compute is made again in the backward pass: less memory, a third slower.
recompute_modules = ["sam.image_encoder.blocks.*"]

param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=50, end=iterations, eta_min=1e-6),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations, val_interval=500)
default_hooks = dict(checkpoint=dict(interval=500))
