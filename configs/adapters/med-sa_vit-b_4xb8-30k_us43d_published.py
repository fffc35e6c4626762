"""Med-SA as in its published code instead of the paper's: PyTorch's initialisation, raw padding, the decoder trains."""

_base_ = ["med-sa_vit-b_4xb8-30k_us43d.py"]

model = dict(adapter=dict(init="default", padding="raw", also_train=["mask_decoder"]))
