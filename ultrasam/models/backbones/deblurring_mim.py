"""DeblurringMIM (Kang et al. 2023) as a backbone: a masked autoencoder's ViT-B/16."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmdet.registry import MODELS
from torch import Tensor

from ultrasam.errors import CheckpointError
from ultrasam.models.backbones.loading import drop, fill, import_timm, read_state, resize_table
from ultrasam.models.backbones.timm_vit import TimmVit

PATCH = 16


def rename_deblurring_mim(state: dict[str, Tensor], grid: int, path: Path) -> dict[str, Tensor]:
    """Return the weights of a DeblurringMIM file by timm's names; what only pretraining needs is left out.

    Args:
        state: of the MAE-B checkpoint, or by timm's names.
        grid: cells a side.
        path: the file, for messages.

    Raises:
        CheckpointError: the ConvMAE network, which is another one, or no positions.
    """
    if any(name.startswith(("patch_embed1.", "blocks3.")) for name in state):
        raise CheckpointError(f"{path} is the ConvMAE variant of DeblurringMIM; give the MAE-B checkpoint (ViT-B/16)")
    state = drop(state, ("mask_token", "decoder_", "head."))
    if "pos_embed" not in state:
        raise CheckpointError(f"{path} holds no pos_embed; give the MAE-B checkpoint of DeblurringMIM")
    return {**state, "pos_embed": resize_table(state["pos_embed"], grid, 1, path)}


@MODELS.register_module()
class DeblurringMimBackbone(TimmVit):
    """ViT-B/16 of DeblurringMIM's deblurring masked autoencoder.

    Args:
        image_size: side of the square in pixels, a multiple of 16.
        weights: the MAE-B checkpoint, or its port to timm; None leaves random ones.
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
        self.net = timm.models.vision_transformer.VisionTransformer(
            img_size=image_size, patch_size=PATCH, num_classes=0, global_pool="token", embed_dim=dim, depth=depth,
            num_heads=heads, drop_path_rate=drop_path_rate,
        )  # fmt: skip
        if weights is not None:
            path, state = read_state(weights)
            fill(self.net, rename_deblurring_mim(state, self.grid, path), path)
        self.settle(weights)
