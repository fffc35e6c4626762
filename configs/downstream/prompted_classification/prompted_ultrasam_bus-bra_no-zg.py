"""Ablation of prompted classification: without z_g beside the classification token."""

_base_ = ["./prompted_ultrasam_bus-bra.py"]

model = dict(global_vector=False)
