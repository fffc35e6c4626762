"""Ablation of prompted classification: without E_o and the mask decoder: prompts meet E_g's tokens alone."""

_base_ = ["./prompted_ultrasam_bus-bra.py"]

model = dict(object_encoder=False)
