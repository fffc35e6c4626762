"""Med-SA on SAM ViT-B for your own COCO files; see lora_vit-b_own.py."""

_base_ = ["lora_vit-b_own.py"]

model = dict(
    method="med_sa", adapter=dict(_delete_=True, ratio=0.25, scale=0.5, init="zero", padding="normalised")
)
