"""LoRA as in SAMed's code instead of the paper's: queries and values only, rank 4, the decoder trains too."""

_base_ = ["lora_vit-b_4xb8-30k_us43d.py"]

model = dict(
    adapter=dict(
        rank=4,
        alpha=4.0,
        dropout=0.0,
        targets="qv",
        also_train=["prompt_encoder", "mask_decoder"],
    )
)
