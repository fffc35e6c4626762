"""ResNet-50 with ImageNet's weights (torchvision's resnet50-0676ba61.pth), its four stages as they are."""

_base_ = ["./mask2former.py"]

model = dict(
    backbone=dict(type="ResNetBackbone", depth=50, image_size=1024, weights=None),
    pyramid="none",
)
