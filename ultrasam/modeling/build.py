"""Architectures by name, wired in one place with plain arguments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ultrasam.modeling.image_encoder import ImageEncoder
from ultrasam.modeling.mask_decoder import MaskDecoder
from ultrasam.modeling.prompt_encoder import PromptEncoder
from ultrasam.modeling.sam import Preprocessing, Sam
from ultrasam.modeling.tiny_vit import TinyViT
from ultrasam.modeling.transformer import TwoWayTransformer


@dataclass(frozen=True)
class Architecture:
    """Sizes of one network.

    Attributes:
        encoder: "vit" or "tiny_vit".
        image_size: default side of the square in pixels.
        encoder_args: arguments of the encoder besides the image size.
        preprocessing: default preprocessing besides the square.
        decoder_mlp_dim: hidden width of the two-way transformer's MLPs.
    """

    encoder: str
    image_size: int
    encoder_args: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    decoder_mlp_dim: int = 2048


ARCHITECTURES: dict[str, Architecture] = {
    "vit_b": Architecture("vit", 1024, dict(dim=768, depth=12, heads=12, global_blocks=(2, 5, 8, 11))),
    "vit_l": Architecture("vit", 1024, dict(dim=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23))),
    "vit_h": Architecture("vit", 1024, dict(dim=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31))),
    "vit_tiny": Architecture("vit", 256, dict(dim=96, depth=4, heads=3, window=8, global_blocks=(1, 3)), {}, 512),
    "tiny_vit": Architecture("tiny_vit", 256, {}, dict(scaling="min_max", interpolation="area")),
}


def build_sam(
    arch: str = "vit_b",
    image_size: int | None = None,
    preprocessing: dict[str, Any] | None = None,
    dropout: float = 0.0,
) -> Sam:
    """Build a network with random weights.

    Args:
        arch: "vit_b", "vit_l", "vit_h" (SAM), "vit_tiny" (demo and tests) or "tiny_vit" (LiteMedSAM).
        image_size: side of the square in pixels, a multiple of 16; None for the architecture's own.
        preprocessing: fields of ``Preprocessing`` other than the architecture's own.
        dropout: in the decoder's MLPs while training.

    Raises:
        ValueError: for an unknown architecture or an image size that does not fit.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {arch!r}; known are {', '.join(ARCHITECTURES)}")
    spec = ARCHITECTURES[arch]
    size = image_size or spec.image_size
    if size % 16:
        raise ValueError(f"image_size must be a multiple of 16, got {size}")
    encoder: nn.Module
    if spec.encoder == "vit":
        encoder = ImageEncoder(image_size=size, **spec.encoder_args)
    else:
        encoder = TinyViT(image_size=size, **spec.encoder_args)
    cells = size // int(encoder.stride)
    pixels = Preprocessing(**{**spec.preprocessing, **(preprocessing or {}), "square": size})
    return Sam(
        encoder,
        PromptEncoder(embed_dim=256, image_size=size, embedding_size=cells),
        MaskDecoder(TwoWayTransformer(mlp_dim=spec.decoder_mlp_dim, dropout=dropout)),
        pixels,
        arch,
    )
