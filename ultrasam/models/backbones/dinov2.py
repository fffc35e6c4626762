"""DINOv2 (Oquab et al. 2024) as a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmdet.registry import MODELS
from torch import Tensor

from ultrasam.errors import CheckpointError, ConfigError
from ultrasam.models.backbones.loading import drop, fill, import_timm, read_state, resize_table
from ultrasam.models.backbones.timm_vit import TimmVit

PATCH = 14


def rename_dinov2(state: dict[str, Tensor], grid: int, registers: int, path: Path) -> dict[str, Tensor]:
    """Return the weights of a DINOv2 file by timm's names, positions interpolated to the model's grid.

    The network with registers has no position for its class token in timm: it is part of that token.

    Args:
        state: of ``dinov2_vitb14_pretrain.pth`` or ``dinov2_vitb14_reg4_pretrain.pth``, or by timm's names.
        grid: cells a side.
        registers: register tokens of the model.
        path: the file, for messages.

    Raises:
        CheckpointError: another number of registers, or no positions.
    """
    state = drop(state, ("mask_token", "head."))
    if "pos_embed" not in state or "cls_token" not in state:
        raise CheckpointError(f"{path} holds no pos_embed and cls_token; give dinov2_vitb14_pretrain.pth")
    tokens = state.pop("register_tokens", state.pop("reg_token", None))
    found = 0 if tokens is None else tokens.shape[1]
    if found != registers:
        raise CheckpointError(f"{path} has {found} register tokens, the backbone {registers}; set registers={found}")
    table = state["pos_embed"]
    if tokens is None:
        return {**state, "pos_embed": resize_table(table, grid, 1, path, official_scale=True)}
    state["reg_token"] = tokens
    side = round(table.shape[1] ** 0.5)
    if side * side != table.shape[1]:
        state["cls_token"], table = state["cls_token"] + table[:, :1], table[:, 1:]
    return {**state, "pos_embed": resize_table(table, grid, 0, path)}


@MODELS.register_module()
class Dinov2Backbone(TimmVit):
    """ViT-B/14 of DINOv2.

    The paper's was trained anew on US-43d and its weights are not public; those of LVD-142M take their place. It
    trains best when frozen (paper section 2.5.2).

    Args:
        image_size: side of the square in pixels, a multiple of 14; 1036 is the nearest with an even grid to 1024.
        weights: dinov2_vitb14_pretrain.pth or a file of timm; None leaves random ones.
        taps: see ``TimmVit``.
        depth: blocks (12).
        dim: width (768).
        heads: attention heads (12).
        registers: register tokens (4 for the reg4 weights).
        preprocessing: fields of ``Preprocessing`` other than ImageNet's.
        frozen: nothing trains.
        drop_path_rate: of the last block in training.
        cache_dir: see ``Backbone``.
        cache_bytes: see ``Backbone``.
    """

    def __init__(
        self,
        image_size: int = 1036,
        weights: str | None = None,
        taps: Sequence[int] | None = None,
        depth: int = 12,
        dim: int = 768,
        heads: int = 12,
        registers: int = 0,
        preprocessing: dict[str, Any] | None = None,
        frozen: bool = True,
        drop_path_rate: float = 0.0,
        cache_dir: str | None = None,
        cache_bytes: int = 20 * 2**30,
    ) -> None:
        super().__init__(image_size, PATCH, depth, dim, taps, preprocessing, frozen, cache_dir, cache_bytes)
        if registers < 0:
            raise ConfigError(f"registers of Dinov2Backbone must not be negative, got {registers}")
        timm = import_timm()
        self.net = timm.models.vision_transformer.VisionTransformer(
            img_size=image_size, patch_size=PATCH, num_classes=0, global_pool="token", embed_dim=dim, depth=depth,
            num_heads=heads, init_values=1e-5, reg_tokens=registers, no_embed_class=registers > 0,
            drop_path_rate=drop_path_rate,
        )  # fmt: skip
        if weights is not None:
            path, state = read_state(weights)
            fill(self.net, rename_dinov2(state, self.grid, registers, path), path)
        self.settle(weights)
