"""As adapter_full_litemedsam_bus-bra.py, but of the encoder LoRA alone trains."""

_base_ = ["adapter_full_litemedsam_bus-bra.py"]

model = dict(
    method="lora",
    adapter=dict(rank=16, alpha=16.0, dropout=0.1, targets="qkv", also_train=["prompt_encoder", "mask_decoder"]),
)
optim_wrapper = dict(optimizer=dict(lr=3e-4))
