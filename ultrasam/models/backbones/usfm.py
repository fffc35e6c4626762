"""USFM (Jiao et al. 2024) as a backbone: BEiT's ViT-B/16 with relative positions and scaled residuals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmdet.registry import MODELS
from torch import Tensor

from ultrasam.errors import CheckpointError
from ultrasam.models.backbones.loading import drop, fill, import_timm, read_state
from ultrasam.models.backbones.timm_vit import TimmVit

PATCH = 16
SHARED_TABLE = "rel_pos_bias.relative_position_bias_table"
TABLE = "attn.relative_position_bias_table"
# Distances that belong to no pair of cells: class token to cell, cell to class token, class token to itself.
CLASS_ROWS = 3
UNUSED = ("mask_token", "head.", "decoder", "lm_head.")


def resize_relative(table: Tensor, grid: int, path: Path) -> Tensor:
    """Interpolate relative positions ((2s - 1)^2 + 3, heads) to a grid of another side, as BEiT does.

    Rows are ordered by the distance down, then across. USFM's own code gives them back transposed, which swaps the
    two; timm's, used here, does not.

    Raises:
        CheckpointError: the table is of no square grid.
    """
    rows = table.shape[0] - CLASS_ROWS
    side = round(max(rows, 0) ** 0.5)
    if rows < 1 or side * side != rows or side % 2 == 0:
        raise CheckpointError(
            f"{path}: the table of relative positions has {table.shape[0]} rows, expected 3 + an odd number squared"
        )
    if side == 2 * grid - 1:
        return table
    cells = (side + 1) // 2
    shape = ((2 * grid - 1) ** 2 + CLASS_ROWS, table.shape[1])
    resize = import_timm().layers.resize_rel_pos_bias_table
    return resize(table.float(), (grid, grid), shape, (cells, cells))


def rename_usfm(state: dict[str, Tensor], grid: int, depth: int, path: Path) -> tuple[dict[str, Tensor], bool]:
    """Return the weights of a USFM file by timm's names, and whether the file has a last normalisation.

    One table of relative positions serves all blocks in the file, and is copied into each. The normalisation after
    pooling (``fc_norm``), where there is one, is used as that of the tokens.

    Args:
        state: of ``USFM_latest.pth``, or by timm's names.
        grid: cells a side.
        depth: blocks of the model.
        path: the file, for messages.

    Raises:
        CheckpointError: no table of relative positions.
    """
    state = {name: v for name, v in drop(state, UNUSED).items() if not name.endswith("relative_position_index")}
    shared = state.pop(SHARED_TABLE, None)
    if shared is not None:
        state |= {f"blocks.{block}.{TABLE}": shared for block in range(depth)}
    if f"blocks.0.{TABLE}" not in state:
        raise CheckpointError(f"{path} holds no {SHARED_TABLE}; give USFM_latest.pth")
    for name in [name for name in state if name.endswith(TABLE)]:
        state[name] = resize_relative(state[name], grid, path)
    norms = {name: state.pop(name) for name in list(state) if name.startswith(("norm.", "fc_norm."))}
    kind = "fc_norm" if "fc_norm.weight" in norms else "norm"
    state |= {f"norm.{part}": norms[f"{kind}.{part}"] for part in ("weight", "bias") if f"{kind}.{part}" in norms}
    return state, bool(norms)


@MODELS.register_module()
class UsfmBackbone(TimmVit):
    """ViT-B/16 of USFM.

    Args:
        image_size: side of the square in pixels, a multiple of 16.
        weights: USFM_latest.pth; None leaves random ones.
        taps: see ``TimmVit``.
        depth: blocks (12).
        dim: width (768).
        heads: attention heads (12).
        preprocessing: fields of ``Preprocessing`` other than ImageNet's.
        frozen: nothing trains.
        drop_path_rate: of the last block in training.
        cache_dir: see ``Backbone``.
        cache_bytes: see ``Backbone``.
    """

    def __init__(
        self,
        image_size: int = 1024,
        weights: str | None = None,
        taps: Sequence[int] | None = None,
        depth: int = 12,
        dim: int = 768,
        heads: int = 12,
        preprocessing: dict[str, Any] | None = None,
        frozen: bool = False,
        drop_path_rate: float = 0.0,
        cache_dir: str | None = None,
        cache_bytes: int = 20 * 2**30,
    ) -> None:
        super().__init__(image_size, PATCH, depth, dim, taps, preprocessing, frozen, cache_dir, cache_bytes)
        timm = import_timm()
        self.net = timm.models.beit.Beit(
            img_size=image_size, patch_size=PATCH, num_classes=0, global_pool="avg", use_fc_norm=False,
            embed_dim=dim, depth=depth, num_heads=heads, init_values=0.1, use_abs_pos_emb=False,
            use_rel_pos_bias=True, drop_path_rate=drop_path_rate,
        )  # fmt: skip
        self.share_index()
        if weights is not None:
            path, state = read_state(weights)
            renamed, normed = rename_usfm(state, self.grid, depth, path)
            fill(self.net, renamed, path, optional=() if normed else ("norm.",))
        self.settle(weights)

    def share_index(self) -> None:
        """Let all blocks use one index of distances: at 1024 pixels each would take 134 MB."""
        first = self.net.blocks[0].attn.relative_position_index  # type: ignore[union-attr,index]
        for block in self.net.blocks:  # type: ignore[union-attr]
            block.attn.relative_position_index = first  # type: ignore[union-attr]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> UsfmBackbone:
        super()._apply(fn, recurse)
        self.share_index()
        return self
