"""Medical SAM Adapter on SAM ViT-B, US-43d: row "Med-SA" of the paper's Table 2; 7.1 M numbers train.

Bottlenecks of a quarter of the width in every block, after attention and, times 0.5, beside the MLP; all of SAM is
frozen:

    tools/dist_train.sh configs/adapters/med-sa_vit-b_4xb8-30k_us43d.py 4 \
        --cfg-options model.weights=sam_vit_b_01ec64.pth
"""

_base_ = ["../ultrasam/ultrasam_vit-b_4xb8-30k_us43d.py"]

model = dict(method="med_sa", adapter=dict(ratio=0.25, scale=0.5, init="zero", padding="normalised"))

custom_hooks = [dict(type="WeightFileHook")]
