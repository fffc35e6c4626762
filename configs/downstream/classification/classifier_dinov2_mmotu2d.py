"""Classifier with DINOv2 on MMOTU2D (Table 3)."""

_base_ = ["./_base_/dinov2.py", "./_base_/mmotu_2d.py"]

model = dict(classes={{_base_.classes}})
train_dataloader = dict(dataset=dict(pipeline={{_base_.train_pipeline_1036}}))
val_dataloader = dict(dataset=dict(pipeline={{_base_.test_pipeline_1036}}))
test_dataloader = dict(dataset=dict(pipeline={{_base_.test_pipeline_1036}}))
