"""LiteMedSAM as it is on BUS-BRA, mask token 0 (its only trained one); it was trained with boxes."""

_base_ = [
    "../_base_/models/litemedsam.py",
    "../_base_/datasets/bus_bra_256.py",
    "../_base_/schedules/ultrasam_30k.py",
    "../_base_/default_runtime.py",
]

model = dict(freeze=["image_encoder"], cache_dir="work_dirs/embeddings")
