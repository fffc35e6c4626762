"""Classifier with DINOv2 on BUS-BRA (Table 3)."""

_base_ = ["./_base_/dinov2.py", "./_base_/bus_bra.py"]

model = dict(classes={{_base_.classes}})
train_dataloader = dict(dataset=dict(pipeline={{_base_.train_pipeline_1036}}))
val_dataloader = dict(dataset=dict(pipeline={{_base_.test_pipeline_1036}}))
test_dataloader = dict(dataset=dict(pipeline={{_base_.test_pipeline_1036}}))
