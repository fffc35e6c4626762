"""The composition study (paper section 3.5, Figure 4): fifteen runs.

ultrasam study list configs/studies/composition_us43d.py --data data/us43d
ultrasam study run configs/studies/composition_us43d.py --data data/us43d --launcher torchrun --gpus 4
ultrasam study collect configs/studies/composition_us43d.py --data data/us43d
"""

_base_ = "../ultrasam/ultrasam_vit-b_4xb8-30k_us43d.py"

study = dict(
    families=dict(breast="bus_bra", ovarian="mmotu_2d", gastrointestinal="gist514_db"),
    shares=[0, 10, 30, 50, 100],
    seeds=[0],
    prompts=["point", "box"],
)
