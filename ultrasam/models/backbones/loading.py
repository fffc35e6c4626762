"""Putting published weights into backbones: safe, strict, with every renaming and interpolation in one place."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ultrasam.checkpoints import resolve_weights, safe_load, unwrap
from ultrasam.errors import CheckpointError, ConfigError

logger = logging.getLogger(__name__)

EXTRA = "backbones"


def import_timm() -> Any:
    """Return timm, which the transformers of DINOv2, USFM and DeblurringMIM come from.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import timm
        import timm.layers
        import timm.models.beit
        import timm.models.vision_transformer
    except ImportError as error:
        raise ConfigError(f"this backbone needs the package timm; run pip install 'ultrasam[{EXTRA}]'") from error
    return timm


def read_state(name_or_path: str | Path) -> tuple[Path, dict[str, Tensor]]:
    """Read a file of weights without wrapper and prefixes.

    DINO's training files keep the teacher's backbone under ``teacher`` with the prefix ``backbone.``.

    Raises:
        CheckpointError: it cannot be read.
    """
    path = resolve_weights(name_or_path)
    content: Mapping[str, Any] = safe_load(path)
    if isinstance(content.get("teacher"), Mapping):
        content = content["teacher"]
    try:
        state = unwrap(content)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if state and all(name.startswith(("backbone.", "dino_head.", "ibot_head.")) for name in state):
        state = {name.removeprefix("backbone."): v for name, v in state.items() if name.startswith("backbone.")}
    return path, state


def drop(state: Mapping[str, Tensor], prefixes: Sequence[str]) -> dict[str, Tensor]:
    """Return the weights without those of names that start with one of ``prefixes``."""
    return {name: value for name, value in state.items() if not name.startswith(tuple(prefixes))}


def fill(module: nn.Module, state: Mapping[str, Tensor], path: Path, optional: Sequence[str] = ()) -> int:
    """Copy weights into a module, all or none.

    Args:
        module: every weight of it must be in ``state``, with its shape.
        state: by the module's names; further names are refused.
        path: the file, for messages.
        optional: starts of names that may be absent; they keep their values.

    Returns:
        How many tensors were copied.

    Raises:
        CheckpointError: says how many names are missing, unexpected or of another shape; the module is unchanged.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in state and not name.startswith(tuple(optional))]
    unexpected = [name for name in state if name not in own]
    shaped = [
        f"{name}: file {tuple(state[name].shape)}, model {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if missing or unexpected or shaped:
        found = [
            f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shaped))
            if names
        ]
        raise CheckpointError(
            f"{path} does not fit {type(module).__name__} with {len(own)} weights: {', '.join(found)}; "
            "give the file that belongs to this backbone, or build it with the file's sizes"
        )
    module.load_state_dict(dict(state), strict=False)
    logger.info("loaded %d of %d weights from %s", len(state), len(own), path)
    return len(state)


def resize_table(table: Tensor, grid: int, prefix: int, path: Path, official_scale: bool = False) -> Tensor:
    """Interpolate absolute positions (1, prefix + s * s, C) to a grid of another side, bicubically.

    Args:
        table: of the file.
        grid: cells a side of the model.
        prefix: leading rows that belong to no cell (class token); they are kept.
        path: the file, for messages.
        official_scale: DINOv2's rule: the scale is (grid + 0.1) / s instead of grid / s, which moves the samples by
            a hundredth of a cell.

    Raises:
        CheckpointError: the table is of no square grid.
    """
    cells = table.shape[1] - prefix if table.ndim == 3 else -1
    side = round(max(cells, 0) ** 0.5)
    if cells < 1 or side * side != cells:
        raise CheckpointError(
            f"{path}: pos_embed has the shape {tuple(table.shape)}, expected (1, {prefix} + a square, channels)"
        )
    if side == grid:
        return table
    patches = table[:, prefix:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if official_scale:
        scale = (grid + 0.1) / side
        patches = F.interpolate(patches, scale_factor=(scale, scale), mode="bicubic", align_corners=False)
    else:
        patches = F.interpolate(patches, size=(grid, grid), mode="bicubic", align_corners=False)
    if patches.shape[-1] != grid:
        raise CheckpointError(f"{path}: positions of {side} cells a side cannot be interpolated to {grid}")
    return torch.cat([table[:, :prefix].float(), patches.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
