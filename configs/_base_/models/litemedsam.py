"""LiteMedSAM: TinyViT at 256 pixels with its published weights, which come with the installation."""

model = dict(
    type="UltraSamDetector",
    arch="tiny_vit",
    image_size=256,
    weights="litemedsam",
    passes=["single"],
    decode_chunk=16,
    dropout=0.0,
)
