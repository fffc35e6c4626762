"""Data preprocessor: a list of resized uint8 images becomes the network's padded square."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.model import BaseDataPreprocessor


@MODELS.register_module()
class SamDataPreprocessor(BaseDataPreprocessor):
    """Move a batch to the device; the pixels are normalised by the weights' own ``Preprocessing``.

    The detector owns the preprocessing because it belongs to the weights, so there is nothing to configure here.
    """

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Return ``inputs``, a list of (3, h, w) uint8 on the device, and ``data_samples``."""
        data = self.cast_data(data)
        inputs = data["inputs"]
        if isinstance(inputs, torch.Tensor):
            inputs = list(inputs)
        return {"inputs": list(inputs), "data_samples": list(data["data_samples"])}
