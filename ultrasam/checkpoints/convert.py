"""Names of ``UltraSam.pth`` to SAM's names and back.

The released file keeps the same 90 million numbers under other names: one table of 11 embeddings for SAM's
eight separate tensors, and attention projections whose three biases are one vector.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ultrasam.errors import CheckpointError

TABLE = "prompt_encoder.label_encoder.label_embedding.weight"
# Rows of the released table, in order, and how many rows each of SAM's tensors takes.
TABLE_ROWS = (
    ("prompt_encoder.no_mask_embed.weight", 1),
    ("prompt_encoder.point_embeddings.0.weight", 1),
    ("prompt_encoder.point_embeddings.1.weight", 1),
    ("prompt_encoder.point_embeddings.2.weight", 1),
    ("prompt_encoder.point_embeddings.3.weight", 1),
    ("prompt_encoder.not_a_point_embed.weight", 1),
    ("mask_decoder.mask_tokens.weight", 4),
    ("mask_decoder.iou_token.weight", 1),
)
PARTS = ("q", "k", "v")
DECODER = "mask_decoder.transformer."
# (place, released name, SAM's name); the place decides where the next ones apply.
PLACES = (
    ("backbone.", "image_encoder."),
    ("decoder.", DECODER),
    ("bbox_head.", "mask_decoder."),
    ("prompt_encoder.", "prompt_encoder."),
)
INNER = {
    "image_encoder.": (
        (r"^patch_embed\.projection\.", "patch_embed.proj."),
        (r"^layers\.", "blocks."),
        (r"\.ln(\d)\.", r".norm\1."),
        (r"\.ffn\.layers\.0\.0\.", ".mlp.lin1."),
        (r"\.ffn\.layers\.1\.", ".mlp.lin2."),
        (r"^channel_reduction\.", "neck."),
    ),
    DECODER: (
        (r"\.mlp\.layers\.0\.0\.", ".mlp.lin1."),
        (r"\.mlp\.layers\.1\.", ".mlp.lin2."),
        (r"^post_norm\.", "norm_final_attn."),
        (r"\.attn\.out_proj\.", ".out_proj."),
        (r"\.attn\.([qkv])_proj_weight$", r".\1_proj.weight"),
    ),
}
INVERSE = {
    "image_encoder.": (
        (r"^patch_embed\.proj\.", "patch_embed.projection."),
        (r"^blocks\.", "layers."),
        (r"\.norm(\d)\.", r".ln\1."),
        (r"\.mlp\.lin1\.", ".ffn.layers.0.0."),
        (r"\.mlp\.lin2\.", ".ffn.layers.1."),
        (r"^neck\.", "channel_reduction."),
    ),
    DECODER: (
        (r"\.mlp\.lin1\.", ".mlp.layers.0.0."),
        (r"\.mlp\.lin2\.", ".mlp.layers.1."),
        (r"^norm_final_attn\.", "post_norm."),
        (r"\.out_proj\.", ".attn.out_proj."),
        (r"\.([qkv])_proj\.weight$", r".attn.\1_proj_weight"),
    ),
}


def convert_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename released weights to SAM's names; unknown names stay as they are.

    Args:
        state: tensors by the names of ``UltraSam.pth``, unwrapped.

    Raises:
        CheckpointError: the embedding table or a bias does not have the shape that can be split.
    """
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        if name == TABLE:
            out.update(_split_table(value))
        elif name.startswith("decoder.") and name.endswith(".attn.in_proj_bias"):
            out.update(_split_bias(name, value))
        else:
            out[_rename(name)] = value
    return out


def convert_to_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename SAM's weights to the names of ``UltraSam.pth``, the inverse of ``convert_released``.

    Raises:
        CheckpointError: one of the tensors that are joined is missing.
    """
    _require(state, [name for name, _ in TABLE_ROWS])
    out = {TABLE: torch.cat([state[name] for name, _ in TABLE_ROWS])}
    joined = {name for name, _ in TABLE_ROWS}
    for name, value in state.items():
        if name in joined:
            continue
        bias = re.fullmatch(rf"{re.escape(DECODER)}(.+)\.([qkv])_proj\.bias", name)
        if bias is None:
            out[released_name(name)] = value
        elif bias[2] == "q":
            stem = name.removesuffix("q_proj.bias")
            names = [f"{stem}{part}_proj.bias" for part in PARTS]
            _require(state, names)
            out[f"decoder.{bias[1]}.attn.in_proj_bias"] = torch.cat([state[part] for part in names])
    return out


def _require(state: Mapping[str, Tensor], names: Sequence[str]) -> None:
    for name in names:
        if name not in state:
            raise CheckpointError(f"cannot write released names: {name!r} is missing; give a whole network")


def _split_table(table: Tensor) -> dict[str, Tensor]:
    rows = [count for _, count in TABLE_ROWS]
    if table.ndim != 2 or table.shape[0] != sum(rows):
        raise CheckpointError(f"{TABLE!r} must have {sum(rows)} rows, found a shape of {tuple(table.shape)}")
    return {name: part.clone() for (name, _), part in zip(TABLE_ROWS, table.split(rows), strict=True)}


def _split_bias(name: str, bias: Tensor) -> dict[str, Tensor]:
    if bias.ndim != 1 or len(bias) % 3:
        raise CheckpointError(f"{name!r} must hold three biases, found a shape of {tuple(bias.shape)}")
    stem = DECODER + name.removeprefix("decoder.").removesuffix("attn.in_proj_bias")
    pieces = zip(PARTS, bias.chunk(3), strict=True)
    return {f"{stem}{part}_proj.bias": piece.clone() for part, piece in pieces}


def _rename(name: str) -> str:
    for released, sam in PLACES:
        if name.startswith(released):
            rest = name.removeprefix(released)
            for pattern, replacement in INNER.get(sam, ()):
                rest = re.sub(pattern, replacement, rest)
            return sam + rest
    return name


def released_name(name: str) -> str:
    """Return the released name of one of SAM's, for tensors that are not split or joined."""
    # The transformer lies inside the mask decoder, so the longer place goes first.
    for released, sam in sorted(PLACES, key=lambda pair: -len(pair[1])):
        if name.startswith(sam):
            rest = name.removeprefix(sam)
            for pattern, replacement in INVERSE.get(sam, ()):
                rest = re.sub(pattern, replacement, rest)
            return released + rest
    return name
