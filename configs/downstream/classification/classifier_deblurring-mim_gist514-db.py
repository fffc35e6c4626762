"""Classifier with DeblurringMIM on GIST514-DB (Table 3)."""

_base_ = ["./_base_/deblurring_mim.py", "./_base_/gist514_db.py"]

model = dict(classes={{_base_.classes}})
