"""Ablation of prompted classification: with one encoder as E_o and E_g, which trains."""

_base_ = ["./prompted_ultrasam_bus-bra.py"]

model = dict(global_encoder="shared")
