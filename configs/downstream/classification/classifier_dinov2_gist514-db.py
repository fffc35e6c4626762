"""Classifier with DINOv2 on GIST514-DB (Table 3)."""

_base_ = ["./_base_/dinov2.py", "./_base_/gist514_db.py"]

model = dict(classes={{_base_.classes}})
train_dataloader = dict(dataset=dict(pipeline={{_base_.train_pipeline_1036}}))
val_dataloader = dict(dataset=dict(pipeline={{_base_.test_pipeline_1036}}))
test_dataloader = dict(dataset=dict(pipeline={{_base_.test_pipeline_1036}}))
