"""The architecture of a network, read off the shapes of its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ultrasam.errors import CheckpointError
from ultrasam.modeling.build import ARCHITECTURES


@dataclass(frozen=True)
class ArchInfo:
    """What the shapes say of a SAM network.

    Attributes:
        name: "vit_b", "vit_l", "vit_h", "vit_tiny", "tiny_vit", or None if it is none of these.
        encoder: "vit" or "tiny_vit".
        dim: width of the encoder's (last) blocks.
        depth: number of blocks.
        heads: attention heads of the (last) blocks.
        image_size: side of the square in pixels; 256 for TinyViT, whose weights do not tell.
        patch_size: pixels a token (ViT) or a cell of the output (TinyViT).
        global_blocks: blocks that attend over the whole image.
        window: side of the others' windows in tokens, 0 if there are none.
        decoder_mlp_dim: hidden width of the two-way transformer's MLPs, 0 where there is no decoder.
        parameters: count of numbers in the weights, without counters of batches.
    """

    name: str | None
    encoder: str
    dim: int
    depth: int
    heads: int
    image_size: int
    patch_size: int
    global_blocks: tuple[int, ...]
    window: int
    decoder_mlp_dim: int
    parameters: int

    def __str__(self) -> str:
        sizes = f"{self.dim} channels, {self.depth} blocks, {self.image_size} pixels"
        return f"{self.name or 'unnamed ' + self.encoder} ({sizes}, {self.parameters / 1e6:.1f} M numbers)"


def describe(state: Mapping[str, Tensor]) -> ArchInfo:
    """Infer the architecture of SAM-named weights (prefixes stripped, released names converted).

    Raises:
        CheckpointError: the image encoder is not there or not of a known kind.
    """
    counted = [value for name, value in state.items() if not name.endswith("num_batches_tracked")]
    parameters = sum(value.numel() for value in counted)
    mlp = state.get("mask_decoder.transformer.layers.0.mlp.lin1.weight")
    decoder_mlp_dim = 0 if mlp is None else int(mlp.shape[0])
    if "image_encoder.patch_embed.proj.weight" in state:
        return _describe_vit(state, decoder_mlp_dim, parameters)
    if "image_encoder.patch_embed.seq.0.c.weight" in state:
        return _describe_tiny_vit(state, decoder_mlp_dim, parameters)
    raise CheckpointError(
        "the weights hold no image encoder of a known kind; expected 'image_encoder.patch_embed.proj.weight' "
        f"(ViT) or '...patch_embed.seq.0.c.weight' (TinyViT), first names are {', '.join(list(state)[:3])}"
    )


def _describe_vit(state: Mapping[str, Tensor], decoder_mlp_dim: int, parameters: int) -> ArchInfo:
    weight = state["image_encoder.patch_embed.proj.weight"]
    dim, patch = int(weight.shape[0]), int(weight.shape[-1])
    position = state.get("image_encoder.pos_embed")
    grid = 0 if position is None else int(position.shape[1])
    lengths: dict[int, int] = {}
    blocks, head_dim = set(), 0
    for key, value in state.items():
        match = re.match(r"image_encoder\.blocks\.(\d+)\.", key)
        if match is None:
            continue
        blocks.add(int(match[1]))
        if key.endswith(".attn.rel_pos_h"):
            lengths[int(match[1])], head_dim = int(value.shape[0]), int(value.shape[1])
    whole = tuple(sorted(index for index, length in lengths.items() if length == 2 * grid - 1))
    windows = {(length + 1) // 2 for index, length in lengths.items() if index not in whole}
    heads = dim // head_dim if head_dim else 0
    name: str | None = None
    for candidate, spec in ARCHITECTURES.items():
        args = spec.encoder_args
        if (
            spec.encoder == "vit"
            and (args["dim"], args["depth"], args["heads"]) == (dim, len(blocks), heads)
            and decoder_mlp_dim in (0, spec.decoder_mlp_dim)
        ):
            name = candidate
    return ArchInfo(
        name,
        "vit",
        dim,
        len(blocks),
        heads,
        grid * patch,
        patch,
        whole,
        max(windows, default=0),
        decoder_mlp_dim,
        parameters,
    )


def _describe_tiny_vit(state: Mapping[str, Tensor], decoder_mlp_dim: int, parameters: int) -> ArchInfo:
    pattern = r"image_encoder\.layers\.(\d+)\.blocks\.(\d+)\."
    blocks = {match.groups() for name in state if (match := re.match(pattern, name))}
    stage = max((stage for stage, _ in blocks), default="3")
    biases = state.get(f"image_encoder.layers.{stage}.blocks.0.attn.attention_biases")
    neck = state.get("image_encoder.neck.0.weight")
    dim, heads = (0 if neck is None else int(neck.shape[1])), (0 if biases is None else int(biases.shape[0]))
    window = 0 if biases is None else round(int(biases.shape[1]) ** 0.5)
    spec = ARCHITECTURES["tiny_vit"]
    known = (dim, len(blocks), heads, decoder_mlp_dim) == (320, 12, 10, spec.decoder_mlp_dim)
    return ArchInfo(
        "tiny_vit" if known else None,
        "tiny_vit",
        dim,
        len(blocks),
        heads,
        spec.image_size,
        4,
        (),
        window,
        decoder_mlp_dim,
        parameters,
    )
