"""DeblurringMIM's ViT-B/16 (the MAE-B checkpoint of the deblurring pretraining)."""

_base_ = ["./classifier.py"]

model = dict(backbone=dict(
        type="DeblurringMimBackbone", image_size=1024, weights=None, preprocessing=dict(interpolation="bilinear")
    ))
