"""Pixels for annotation files without images: trainings of full size can then be tried on any machine."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from ultrasam.geometry.rle import decode_mask


@TRANSFORMS.register_module()
class MakeUltrasound(BaseTransform):
    """Stands in for ``LoadUltrasound``: speckle of the size that the annotation file says, darker inside of objects.

    The same image has the same pixels whenever it is made.

    Args:
        contrast: grey levels between tissue and objects.
    """

    def __init__(self, contrast: float = 60.0) -> None:
        self.contrast = contrast

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``img`` (H, W, 3) uint8, ``masks`` (N, H, W) bool, ``boxes`` and ``ori_shape``."""
        height, width = results["height"], results["width"]
        masks = [decode_mask(obj.rle) for obj in results["objects"]]
        results["masks"] = np.stack(masks) if masks else np.zeros((0, height, width), bool)
        results["boxes"] = np.array([obj.box for obj in results["objects"]], np.float32).reshape(-1, 4)
        # Drawn small and enlarged: grains of a few pixels, as speckle has, for a tenth of the time.
        rng = np.random.default_rng(abs(int(results["img_id"])))
        grain = rng.normal(120, 30, (height // 3 + 1, width // 3 + 1)).astype(np.float32)
        grey = cv2.resize(grain, (width, height), interpolation=cv2.INTER_LINEAR)
        grey -= self.contrast * results["masks"].any(axis=0)
        results["img"] = np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
        results["ori_shape"] = (height, width)
        results["flip"] = False
        return results
