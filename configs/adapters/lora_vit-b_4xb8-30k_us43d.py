"""LoRA on SAM ViT-B, US-43d: row "LoRA" of the paper's Table 2; 0.59 M of 94 M numbers train.

Rank and alpha 16, dropout 0.1, on the fused qkv of every block, all of SAM frozen; prompts, loss and schedule are
those of configs/ultrasam:

    tools/dist_train.sh configs/adapters/lora_vit-b_4xb8-30k_us43d.py 4 --cfg-options model.weights=sam_vit_b_01ec64.pth
    tools/dist_test.sh configs/adapters/lora_vit-b_4xb8-30k_us43d.py CHECKPOINT 4 --prompt box
"""

_base_ = ["../ultrasam/ultrasam_vit-b_4xb8-30k_us43d.py"]

model = dict(method="lora", adapter=dict(rank=16, alpha=16.0, dropout=0.1, targets="qkv"))

# Writes adapter.safetensors at the end.
custom_hooks = [dict(type="WeightFileHook")]
