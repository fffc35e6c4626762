"""As adapter_full_vit-tiny_bus-bra.py, but the image encoder is frozen."""

_base_ = ["adapter_full_vit-tiny_bus-bra.py"]

model = dict(method="decoder")
optim_wrapper = dict(optimizer=dict(lr=3e-4))
