"""Classifier with USFM on MMOTU2D (Table 3)."""

_base_ = ["./_base_/usfm.py", "./_base_/mmotu_2d.py"]

model = dict(classes={{_base_.classes}})
