"""UltraSam as in the paper: SAM ViT-B on US-43d, 4 GPUs x 8 images, 30,000 iterations, with refinement.

Trains from sam_vit_b_01ec64.pth (https://github.com/facebookresearch/segment-anything); tests its checkpoints and the
published UltraSam.pth (https://github.com/CAMMA-public/UltraSam):

    tools/dist_train.sh configs/ultrasam/ultrasam_vit-b_4xb8-30k_us43d.py 4 --weights sam_vit_b_01ec64.pth
    tools/dist_test.sh configs/ultrasam/ultrasam_vit-b_4xb8-30k_us43d.py CHECKPOINT 4 --prompt box
"""

_base_ = [
    "../_base_/models/ultrasam_vit_b.py",
    "../_base_/datasets/us43d.py",
    "../_base_/schedules/ultrasam_30k.py",
    "../_base_/default_runtime.py",
]

optim_wrapper = dict(type="AmpOptimWrapper", dtype="bfloat16")

# Dice loss and IoU of every data set in the log.
custom_hooks = [dict(type="PerDatasetHook")]
