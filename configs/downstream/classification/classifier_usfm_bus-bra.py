"""Classifier with USFM on BUS-BRA (Table 3)."""

_base_ = ["./_base_/usfm.py", "./_base_/bus_bra.py"]

model = dict(classes={{_base_.classes}})
