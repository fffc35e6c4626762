"""ResNet as a backbone: torchvision's network and names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mmdet.registry import MODELS
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from ultrasam.errors import ConfigError
from ultrasam.models.backbones.base import Backbone, pixels, require_multiple
from ultrasam.models.backbones.loading import drop, fill, read_state

DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STAGES = ("layer1", "layer2", "layer3", "layer4")


@MODELS.register_module()
class ResNetBackbone(Backbone):
    """Four stages of a ResNet; BatchNorm keeps its statistics and weights, as detectors have it.

    Args:
        depth: 50, 101 or 152.
        image_size: side of the square in pixels, a multiple of 32.
        weights: file of torchvision's names, such as resnet50-0676ba61.pth (ImageNet); None leaves random ones.
        blocks: blocks of each stage instead of those of ``depth`` (for tests).
        preprocessing: fields of ``Preprocessing`` other than ImageNet's mean and standard deviation.
        train_norm: let BatchNorm train; off, it is a fixed scale, which small batches need.
        frozen: nothing trains.
        cache_dir: see ``Backbone``.
        cache_bytes: see ``Backbone``.

    Raises:
        ConfigError: a value that does not fit.
        CheckpointError: weights that do not fit.
    """

    out_channels = (256, 512, 1024, 2048)
    strides = (4, 8, 16, 32)
    token_channels = 2048
    layers = 5

    def __init__(
        self,
        depth: int = 50,
        image_size: int = 1024,
        weights: str | None = None,
        blocks: Sequence[int] | None = None,
        preprocessing: dict[str, Any] | None = None,
        train_norm: bool = False,
        frozen: bool = False,
        cache_dir: str | None = None,
        cache_bytes: int = 20 * 2**30,
    ) -> None:
        if depth not in DEPTHS:
            raise ConfigError(f"depth of ResNetBackbone must be one of {list(DEPTHS)}, got {depth}")
        if blocks is not None and (len(blocks) != 4 or min(blocks) < 1):
            raise ConfigError(f"blocks of ResNetBackbone are four counts from 1, got {list(blocks)}")
        require_multiple(image_size, 32, "ResNetBackbone")
        super().__init__(pixels(image_size, preprocessing), frozen, cache_dir, cache_bytes)
        self.net = ResNet(Bottleneck, list(blocks or DEPTHS[depth]))
        self.net.fc = nn.Identity()  # type: ignore[assignment]
        self.train_norm = train_norm
        if weights is not None:
            path, state = read_state(weights)
            fill(self.net, drop(state, ("fc.",)), path)
        if not train_norm:
            for norm in self.norms():
                norm.requires_grad_(False)
        self.settle(weights)

    def norms(self) -> list[nn.Module]:
        """Return every BatchNorm."""
        return [module for module in self.net.modules() if isinstance(module, nn.BatchNorm2d)]

    def train(self, mode: bool = True) -> ResNetBackbone:
        """Set the training mode; a BatchNorm that does not train keeps its statistics."""
        super().train(mode)
        if not self.train_norm:
            for norm in self.norms():
                norm.eval()
        return self

    def encode(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the maps of the four stages, and the cells of the last as tokens."""
        net = self.net
        x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        maps = []
        for stage in STAGES:
            x = getattr(net, stage)(x)
            maps.append(x)
        return maps, x.flatten(2).transpose(1, 2)

    def layer_of(self, name: str) -> int:
        """Return the depth of a parameter: stem 0, stage k k."""
        stage = re.match(r"net\.layer(\d)\.", name)
        return int(stage.group(1)) if stage else 0
