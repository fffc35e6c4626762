"""Classifier with DeblurringMIM on BUS-BRA (Table 3)."""

_base_ = ["./_base_/deblurring_mim.py", "./_base_/bus_bra.py"]

model = dict(classes={{_base_.classes}})
