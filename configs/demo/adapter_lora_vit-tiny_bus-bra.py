"""As adapter_full_vit-tiny_bus-bra.py, but LoRA alone trains."""

_base_ = ["adapter_full_vit-tiny_bus-bra.py"]

model = dict(method="lora", adapter=dict(rank=16, alpha=16.0, dropout=0.1, targets="qkv"))
# The few numbers of an adapter stand a larger rate; all three have the same.
optim_wrapper = dict(optimizer=dict(lr=1e-3))
