"""Classifier with ResNet-50 on BUS-BRA (Table 3)."""

_base_ = ["./_base_/resnet50.py", "./_base_/bus_bra.py"]

model = dict(classes={{_base_.classes}})
