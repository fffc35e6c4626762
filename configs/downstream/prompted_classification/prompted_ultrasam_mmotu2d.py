"""Prompted classification with UltraSam's weights on MMOTU2D (Table 4); tests with --prompt box, point or centroid.

    python tools/train.py configs/downstream/prompted_classification/prompted_ultrasam_mmotu2d.py --weights UltraSam.pth
    python tools/test.py configs/downstream/prompted_classification/prompted_ultrasam_mmotu2d.py CHECKPOINT --prompt box
"""

_base_ = ["./_base_/prompted_classifier.py", "./_base_/mmotu_2d.py"]

model = dict(classes={{_base_.classes}})
