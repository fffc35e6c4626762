"""As adapter_full_litemedsam_bus-bra.py, but of the encoder Med-SA's adapters alone train."""

_base_ = ["adapter_full_litemedsam_bus-bra.py"]

model = dict(
    method="med_sa", adapter=dict(ratio=0.25, scale=0.5, also_train=["prompt_encoder", "mask_decoder"])
)
optim_wrapper = dict(optimizer=dict(lr=3e-4))
