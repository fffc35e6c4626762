"""ResNet-50 with ImageNet's weights (torchvision's resnet50-0676ba61.pth)."""

_base_ = ["./classifier.py"]

model = dict(backbone=dict(type="ResNetBackbone", depth=50, image_size=1024, weights=None, preprocessing=dict(interpolation="bilinear")))
