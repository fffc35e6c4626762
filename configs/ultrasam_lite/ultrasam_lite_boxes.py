"""As ultrasam_lite_borders.py, with LiteMedSAM's answers to boxes as a teacher."""

_base_ = ["./ultrasam_lite_borders.py"]

model = dict(teacher=dict(weights="litemedsam", weight=2.0, prompts="box"))
