"""Classifier with MedSAM on BUS-BRA (Table 3)."""

_base_ = ["./_base_/medsam.py", "./_base_/bus_bra.py"]

model = dict(classes={{_base_.classes}})
