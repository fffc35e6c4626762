"""As ultrasam_lite_borders.py, with LiteMedSAM's answers to boxes as a teacher.

Run with ``model.loss.focal_alpha`` of 0.5 and of 0.4; what comes with the installation is the mean of these two trainings
and of ultrasam_lite_borders.py.
"""

_base_ = ["./ultrasam_lite_borders.py"]

model = dict(teacher=dict(weights="litemedsam", weight=2.0, prompts="box"))
