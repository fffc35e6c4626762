"""Ablation of prompted classification: without the prompt: every object of an image gets the same answer."""

_base_ = ["./prompted_ultrasam_bus-bra.py"]

model = dict(prompt=False)
