"""Classifier with ResNet-50 on MMOTU2D (Table 3)."""

_base_ = ["./_base_/resnet50.py", "./_base_/mmotu_2d.py"]

model = dict(classes={{_base_.classes}})
