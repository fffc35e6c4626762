"""Classifier with SAM on MMOTU2D (Table 3)."""

_base_ = ["./_base_/sam.py", "./_base_/mmotu_2d.py"]

model = dict(classes={{_base_.classes}})
