"""SAM's image encoders as backbones: SAM, MedSAM and UltraSam (ViT), LiteMedSAM (TinyViT)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ultrasam.checkpoints import load_checkpoint, resolve_weights
from ultrasam.errors import CheckpointError, ConfigError
from ultrasam.modeling.build import ARCHITECTURES
from ultrasam.modeling.image_encoder import Block, ImageEncoder
from ultrasam.modeling.tiny_vit import TinyViT
from ultrasam.models.backbones.base import Backbone, check_taps, even_taps, pixels, require_multiple


def drop_path(residual: Tensor, rate: float, training: bool) -> Tensor:
    """Drop the residual of whole samples (B, ...) in training, and scale the others so that the mean stays."""
    if not training or rate == 0.0:
        return residual
    shape = (len(residual), *(1,) * (residual.ndim - 1))
    return residual * torch.rand(shape, device=residual.device).ge(rate).to(residual.dtype) / (1.0 - rate)


class Holder(nn.Module):
    """Gives an encoder the name that it has in SAM's files."""

    def __init__(self, image_encoder: nn.Module) -> None:
        super().__init__()
        self.image_encoder = image_encoder


def load_encoder(encoder: nn.Module, weights: str) -> None:
    """Load the image encoder of a file of SAM, MedSAM, UltraSam or LiteMedSAM; positions of another size are resized.

    Raises:
        CheckpointError: the file cannot be read, or its encoder is of another architecture.
    """
    path = resolve_weights(weights)
    holder = Holder(encoder)
    before = {name: value.clone() for name, value in holder.state_dict().items()}
    report = load_checkpoint(holder, path, strict=False, resize_positions=True)
    strange = [name for name in report.unexpected if name.startswith("image_encoder.")]
    if report.missing or report.mismatched or strange:
        holder.load_state_dict(before)
        raise CheckpointError(
            f"{path} is {report.arch} and does not fit the backbone: {len(report.missing)} weights missing, "
            f"{len(strange)} unexpected, {len(report.mismatched)} of another shape; set the backbone's arch and sizes"
        )


@MODELS.register_module()
class SamBackbone(Backbone):
    """Image encoder of SAM (ViT), with the maps after some blocks, or of LiteMedSAM (TinyViT), with the neck's map.

    The ViT's neck is part of the module, so that its weights stay together, and is not used.

    Args:
        arch: "vit_b", "vit_l", "vit_h", "vit_tiny" or "tiny_vit" (LiteMedSAM), see ``ultrasam.modeling.build``.
        image_size: side of the square in pixels; None for the architecture's own.
        weights: file or name of the weights; None leaves random ones.
        taps: blocks of the ViT whose output is a feature map; None takes the last of each quarter (2, 5, 8, 11 of 12).
        sizes: further arguments of the encoder, such as depth and dim (for tests).
        preprocessing: fields of ``Preprocessing`` other than the architecture's own.
        frozen: nothing trains.
        drop_path_rate: of the last block in training; it grows linearly from 0 at the first (ViT only).
        cache_dir: see ``Backbone``.
        cache_bytes: see ``Backbone``.

    Raises:
        ConfigError: a value that does not fit.
        CheckpointError: weights that do not fit.
    """

    def __init__(
        self,
        arch: str = "vit_b",
        image_size: int | None = None,
        weights: str | None = None,
        taps: Sequence[int] | None = None,
        sizes: dict[str, Any] | None = None,
        preprocessing: dict[str, Any] | None = None,
        frozen: bool = False,
        drop_path_rate: float = 0.0,
        cache_dir: str | None = None,
        cache_bytes: int = 20 * 2**30,
    ) -> None:
        if arch not in ARCHITECTURES:
            raise ConfigError(f"unknown architecture {arch!r}; known are {', '.join(ARCHITECTURES)}")
        spec = ARCHITECTURES[arch]
        side = image_size or spec.image_size
        require_multiple(side, 16, f"SamBackbone {arch}")
        super().__init__(pixels(side, preprocessing, **spec.preprocessing), frozen, cache_dir, cache_bytes)
        self.arch = arch
        build = ImageEncoder if spec.encoder == "vit" else TinyViT
        try:
            self.encoder: ImageEncoder | TinyViT = build(image_size=side, **{**spec.encoder_args, **(sizes or {})})
        except (TypeError, ValueError) as error:
            raise ConfigError(f"SamBackbone {arch} cannot be built: {error}; correct its sizes") from error
        self.taps: tuple[int, ...] = ()
        if isinstance(self.encoder, ImageEncoder):
            self._set_vit(self.encoder, taps, drop_path_rate)
        else:
            self._set_tiny_vit(self.encoder, taps, drop_path_rate)
        if weights is not None:
            load_encoder(self.encoder, weights)
        self.settle(weights)

    def _set_vit(self, encoder: ImageEncoder, taps: Sequence[int] | None, rate: float) -> None:
        depth = len(encoder.blocks)
        self.taps = even_taps(depth) if taps is None else check_taps(taps, depth, f"SamBackbone {self.arch}")
        width = encoder.pos_embed.shape[-1]
        self.out_channels, self.strides = (width,) * len(self.taps), (encoder.stride,) * len(self.taps)
        self.token_channels = width
        self.layers = depth + 2
        self.rates = [rate * block / max(depth - 1, 1) for block in range(depth)]
        encoder.neck.requires_grad_(False)

    def _set_tiny_vit(self, encoder: TinyViT, taps: Sequence[int] | None, rate: float) -> None:
        if taps is not None or rate:
            raise ConfigError("SamBackbone tiny_vit has one map, that of its neck, and no drop path; remove both")
        self.out_channels, self.strides = (encoder.embed_dim_out,), (encoder.stride,)
        self.token_channels = encoder.embed_dim_out
        self.layers = len(encoder.stages())

    def encode(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the maps and the tokens: of the last block (ViT) or of the neck (TinyViT)."""
        encoder = self.encoder
        if isinstance(encoder, TinyViT):
            found = encoder(images)
            return [found], found.flatten(2).transpose(1, 2)
        x = encoder.embed(images)
        maps = []
        for number, block in enumerate(encoder.blocks):
            x = self.run_block(block, x, self.rates[number])
            maps += [x.permute(0, 3, 1, 2).contiguous()] * self.taps.count(number)
        return maps, x.flatten(1, 2)

    def run_block(self, block: nn.Module, x: Tensor, rate: float) -> Tensor:
        """Pass (B, h, w, dim) through a block, with drop path in training."""
        if not (self.training and rate):
            return block(x)
        assert isinstance(block, Block)
        x = x + drop_path(block.attn(block.norm1(x)), rate, self.training)
        return x + drop_path(block.mlp(block.norm2(x)), rate, self.training)

    def layer_of(self, name: str) -> int:
        """Return the depth of a parameter: patches and positions 0, block k k + 1, neck last."""
        if isinstance(self.encoder, TinyViT):
            prefixes = {id(p): step for step, part in enumerate(self.encoder.stages()) for p in part.parameters()}
            return prefixes[id(self.get_parameter(name))]
        block = re.match(r"encoder\.blocks\.(\d+)\.", name)
        if block:
            return int(block.group(1)) + 1
        return self.layers - 1 if name.startswith("encoder.neck.") else 0

    def cache_name(self) -> str:
        """Return the taps."""
        return "-".join(map(str, self.taps)) or "neck"

    def describe(self) -> dict[str, Any]:
        """Return what a checkpoint's card says of the backbone."""
        return {**super().describe(), "arch": self.arch, "taps": list(self.taps)}
