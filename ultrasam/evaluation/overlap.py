"""Overlap of a predicted mask with the true one: Dice and IoU.

The rule for empty masks: where only one of the two is empty the overlap is 0; where both are empty it is
undefined (NaN). Callers count such objects apart and leave them out of every mean, so that they can neither
raise nor lower it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as rle_tools

from ultrasam.errors import DataError

Rle = Mapping[str, Any]
Mask = npt.NDArray[np.bool_]


def dice(mask: Mask, truth: Mask) -> float:
    """Return twice the intersection over the sum of the areas of two bool H x W masks, 0-1.

    NaN where both are empty. Raises DataError where the sizes differ.
    """
    overlap, mask_area, truth_area = _counts(mask, truth)
    total = mask_area + truth_area
    return 2.0 * overlap / total if total else math.nan


def iou(mask: Mask, truth: Mask) -> float:
    """Return the intersection over the union of two bool H x W masks, 0-1.

    NaN where both are empty. Raises DataError where the sizes differ.
    """
    overlap, mask_area, truth_area = _counts(mask, truth)
    union = mask_area + truth_area - overlap
    return overlap / union if union else math.nan


def _counts(mask: Mask, truth: Mask) -> tuple[int, int, int]:
    if mask.shape != truth.shape:
        raise DataError(
            f"A mask of {mask.shape} pixels cannot be compared with a truth of {truth.shape}: bring both to "
            "the original size of the image."
        )
    return int(np.count_nonzero(mask & truth)), int(np.count_nonzero(mask)), int(np.count_nonzero(truth))


def rle_iou(prediction: Rle, truth: Rle) -> float:
    """Return the IoU of two RLEs `{"size": [h, w], "counts": ...}` without decoding them, 0-1.

    NaN where both are empty. Raises DataError where the sizes differ.
    """
    if list(prediction["size"]) != list(truth["size"]):
        raise DataError(
            f"A mask of size {list(prediction['size'])} cannot be compared with a truth of size "
            f"{list(truth['size'])}: bring both to the original size of the image."
        )
    if not rle_tools.area(dict(prediction)) and not rle_tools.area(dict(truth)):
        return math.nan
    return float(rle_tools.iou([dict(prediction)], [dict(truth)], [0])[0, 0])


def object_ious(predictions: Sequence[Rle], truths: Sequence[Rle]) -> npt.NDArray[np.float64]:
    """Return the IoU of each prediction with the truth of its own prompt: RLEs (N), (N) -> (N,), by position.

    Raises:
        DataError: The two numbers of objects, or two sizes, differ.
    """
    if len(predictions) != len(truths):
        raise DataError(
            f"There are {len(predictions)} predicted masks for {len(truths)} objects, but prompt i answers "
            "object i: predict exactly one mask for every prompt."
        )
    return np.array([rle_iou(p, t) for p, t in zip(predictions, truths, strict=True)], dtype=np.float64)


def dice_of_iou(value: float) -> float:
    """Return the Dice score that belongs to an IoU; the two determine each other exactly."""
    return 2.0 * value / (1.0 + value)
