"""Four scales from a plain transformer's one resolution."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ultrasam.errors import ConfigError
from ultrasam.modeling.common import LayerNorm2d

SOURCES = ("taps", "last")
STRIDES = (4, 8, 16, 32)
ENLARGEMENTS = {1: 0, 2: 1, 4: 2, 8: 3}


def rescale(channels: int, stride: int, target: int) -> tuple[nn.Module, int]:
    """Return the layers from one stride to another, and the channels after them.

    Each doubling of the resolution is a transposed convolution that halves the channels (between two of them a
    normalisation and GELU), each reduction a maximum, as in ViTDet (Li et al. 2022, section 3.1).

    Raises:
        ConfigError: the strides are no power of two apart.
    """
    if target >= stride:
        factor = target // stride
        if factor * stride != target:
            raise ConfigError(f"a map of stride {stride} cannot become one of stride {target}")
        return (nn.MaxPool2d(factor) if factor > 1 else nn.Identity()), channels
    doublings = ENLARGEMENTS.get(stride // target, 0)
    if target * 2**doublings != stride:
        raise ConfigError(f"a map of stride {stride} cannot become one of stride {target}")
    layers: list[nn.Module] = []
    for step in range(doublings):
        if step:
            layers += [LayerNorm2d(channels), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, channels // 2, 2, 2))
        channels //= 2
    return nn.Sequential(*layers), channels


class FeaturePyramid(nn.Module):
    """Maps of strides 4, 8, 16 and 32 from the maps of a backbone with one resolution.

    With "taps", the map of the first tapped block becomes the finest scale and that of the last the coarsest (blocks
    2, 5, 8, 11 of ViT-B). With "last", every scale comes from the last map: ViTDet's simple feature pyramid. Either
    way the change of resolution is followed by a 1x1 and a 3x3 convolution with normalisation over channels.

    Args:
        in_channels: channels of each map; one map a scale for "taps".
        stride: input pixels a cell of the maps.
        source: "taps" or "last".
        out_channels: channels of every scale.
        strides: of the scales.

    Raises:
        ConfigError: an unknown source, or not as many maps as scales.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        stride: int = 16,
        source: str = "taps",
        out_channels: int = 256,
        strides: Sequence[int] = STRIDES,
    ) -> None:
        super().__init__()
        if source not in SOURCES:
            raise ConfigError(f"the source of a feature pyramid must be one of {', '.join(SOURCES)}, got {source!r}")
        if source == "taps" and len(in_channels) != len(strides):
            raise ConfigError(
                f"a pyramid from taps needs {len(strides)} maps, the backbone gives {len(in_channels)}; "
                "tap as many blocks or take the source 'last'"
            )
        self.source = source
        self.strides = tuple(strides)
        self.out_channels = (out_channels,) * len(self.strides)
        chosen = list(in_channels) if source == "taps" else [in_channels[-1]] * len(self.strides)
        self.scales = nn.ModuleList()
        for channels, target in zip(chosen, self.strides, strict=True):
            change, width = rescale(channels, stride, target)
            self.scales.append(
                nn.Sequential(
                    change,
                    nn.Conv2d(width, out_channels, 1, bias=False),
                    LayerNorm2d(out_channels),
                    nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                    LayerNorm2d(out_channels),
                )
            )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Map maps (B, C, h, w) to one of every scale, (B, out_channels, h', w') each, the finest first."""
        chosen = list(maps) if self.source == "taps" else [maps[-1]] * len(self.scales)
        return tuple(scale(part) for scale, part in zip(self.scales, chosen, strict=True))
