"""UltraSam: SAM ViT-B at 1024 pixels, everything trains, one refinement pass."""

model = dict(
    type="UltraSamDetector",
    arch="vit_b",
    image_size=1024,
    weights=None,  # set to sam_vit_b_01ec64.pth to start from SAM, as the paper does
    passes=["single", "multi"],
    refine_with_box=False,
    decode_chunk=16,
    dropout=0.1,
    loss=dict(focal=20.0, dice=1.0, iou=1.0, iou_form="l1"),
)
