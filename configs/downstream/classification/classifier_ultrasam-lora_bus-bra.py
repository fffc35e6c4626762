"""Classifier on BUS-BRA with LoRA on UltraSam's frozen ViT-B: 589,824 weights and the linear layer train."""

_base_ = ["./classifier_ultrasam_bus-bra.py"]

model = dict(adapter=dict(method="lora", rank=16, alpha=16.0, dropout=0.1))
