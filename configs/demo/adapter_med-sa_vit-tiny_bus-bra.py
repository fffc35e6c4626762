"""As adapter_full_vit-tiny_bus-bra.py, but Med-SA's adapters alone train."""

_base_ = ["adapter_full_vit-tiny_bus-bra.py"]

model = dict(method="med_sa", adapter=dict(ratio=0.25, scale=0.5, init="zero", padding="normalised"))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
