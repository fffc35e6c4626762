"""Ablation of prompted classification: without E_g: neither global tokens nor z_g."""

_base_ = ["./prompted_ultrasam_bus-bra.py"]

model = dict(global_encoder="none")
