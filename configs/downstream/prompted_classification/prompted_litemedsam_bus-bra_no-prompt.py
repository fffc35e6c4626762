"""Ablation on a CPU: prompted_litemedsam_bus-bra.py without the prompt, everything else alike."""

_base_ = ["./prompted_litemedsam_bus-bra.py"]

model = dict(prompt=False)
