"""What DINOv2, USFM and DeblurringMIM share: plain transformers of timm with maps after some blocks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ultrasam.models.backbones.base import Backbone, check_taps, even_taps, pixels, require_multiple


class TimmVit(Backbone):
    """A plain transformer: one resolution, maps after the blocks of ``taps``, tokens of the last block.

    Maps and tokens pass the network's last normalisation, as DINOv2's own use has it, so that every weight takes
    part in either.

    Args:
        image_size: side of the square in pixels, a multiple of ``patch``.
        patch: side of a patch in pixels.
        depth: blocks.
        dim: width.
        taps: blocks whose output is a feature map; None takes the last of each quarter.
        preprocessing: fields of ``Preprocessing`` other than ImageNet's mean and deviation and bicubic resizing.
        frozen: nothing trains.
        cache_dir: see ``Backbone``.
        cache_bytes: see ``Backbone``.
    """

    net: nn.Module

    def __init__(
        self,
        image_size: int,
        patch: int,
        depth: int,
        dim: int,
        taps: Sequence[int] | None,
        preprocessing: dict[str, Any] | None,
        frozen: bool,
        cache_dir: str | None,
        cache_bytes: int,
    ) -> None:
        name = type(self).__name__
        require_multiple(image_size, patch, name)
        defaults = pixels(image_size, preprocessing, interpolation="bicubic")
        super().__init__(defaults, frozen, cache_dir, cache_bytes)
        self.taps = even_taps(depth) if taps is None else check_taps(taps, depth, name)
        self.grid = image_size // patch
        self.out_channels = (dim,) * len(self.taps)
        self.strides = (16,) * len(self.taps)
        self.token_channels = dim
        self.layers = depth + 2

    def encode(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the maps and the tokens of the last block, both normalised."""
        depth = self.layers - 2
        wanted = sorted({*self.taps, depth - 1})
        found = self.net.forward_intermediates(  # type: ignore[operator]
            images, indices=wanted, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        by_block = dict(zip(wanted, found, strict=True))
        return [by_block[tap] for tap in self.taps], by_block[depth - 1].flatten(2).transpose(1, 2)

    def layer_of(self, name: str) -> int:
        """Return the depth of a parameter: patches, positions and class token 0, block k k + 1, last norm last."""
        block = re.match(r"net\.blocks\.(\d+)\.", name)
        if block:
            return int(block.group(1)) + 1
        return self.layers - 1 if name.startswith("net.norm.") else 0

    def cache_name(self) -> str:
        """Return the taps."""
        return "-".join(map(str, self.taps))

    def describe(self) -> dict[str, Any]:
        """Return what a checkpoint's card says of the backbone."""
        return {**super().describe(), "taps": list(self.taps)}
