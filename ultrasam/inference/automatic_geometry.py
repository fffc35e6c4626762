"""Grids, crops, boxes and small regions of automatic masks, equal to those of ``segment_anything``.

Boxes here are that package's: x1, y1, x2, y2 with both ends inside of the mask, zeros for an empty one.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ultrasam.geometry.extent import extent_of

# Pixels from a crop's border within which a mask counts as cut by it.
EDGE = 20


def point_grid(per_side: int) -> NDArray[np.float64]:
    """Return the centres (n * n, 2), x then y, of the cells of an n x n grid over the unit square, row by row."""
    places = np.linspace(1 / (2 * per_side), 1 - 1 / (2 * per_side), per_side)
    return np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)


def crop_boxes(
    height: int, width: int, layers: int, overlap_ratio: float
) -> list[tuple[int, tuple[int, int, int, int]]]:
    """Return (layer, half-open box x1, y1, x2, y2) of the image and of the crops of every layer.

    Args:
        height: of the image in pixels.
        width: of the image in pixels.
        layers: layer i has 2^i crops along each side.
        overlap_ratio: overlap of two crops of layer 1 over the image's short side; halved from layer to layer.
    """
    found = [(0, (0, 0, width, height))]
    for layer in range(1, layers + 1):
        per_side = 2**layer
        overlap = int(overlap_ratio * min(height, width) * (2 / per_side))
        crop_width, crop_height = (
            math.ceil((overlap * (per_side - 1) + length) / per_side) for length in (width, height)
        )
        for column in range(per_side):
            for row in range(per_side):
                x, y = column * (crop_width - overlap), row * (crop_height - overlap)
                found.append((layer, (x, y, min(x + crop_width, width), min(y + crop_height, height))))
    return found


def touches_crop(box: NDArray[np.int64], crop: tuple[int, int, int, int], height: int, width: int) -> bool:
    """Whether a box (4,) of the image lies within ``EDGE`` pixels of a border that the crop has and the image not."""
    near_crop = np.abs(box - np.array(crop)) <= EDGE
    near_image = np.abs(box - np.array((0, 0, width, height))) <= EDGE
    return bool((near_crop & ~near_image).any())


def inclusive_box(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the box (4,) of a mask (H, W)."""
    found = extent_of(mask)
    return np.zeros(4, np.int64) if found is None else np.array(found, np.int64) - (0, 0, 1, 1)


def suppress(boxes: NDArray[np.int64], scores: NDArray[np.floating], limit: float) -> list[int]:
    """Return the boxes to keep, best first: none overlaps a better kept one by an IoU above ``limit``.

    Args:
        boxes: (N, 4).
        scores: (N,); of equal ones the first is the better.
        limit: greatest IoU of two boxes.
    """
    x1, y1, x2, y2 = boxes.astype(np.float32).reshape(-1, 4).T
    areas = (x2 - x1) * (y2 - y1)
    waiting = np.argsort(-scores, kind="stable")
    kept = []
    while len(waiting):
        first, waiting = int(waiting[0]), waiting[1:]
        kept.append(first)
        across = np.minimum(x2[first], x2[waiting]) - np.maximum(x1[first], x1[waiting])
        down = np.minimum(y2[first], y2[waiting]) - np.maximum(y1[first], y1[waiting])
        shared = np.maximum(across, 0) * np.maximum(down, 0)
        # Two boxes without area have no IoU, and both stay. The limit keeps its digits: float64.
        with np.errstate(invalid="ignore"):
            overlap = shared / (areas[first] + areas[waiting] - shared)
        waiting = waiting[~(overlap.astype(np.float64) > limit)]
    return kept


def without_small_regions(mask: NDArray[np.bool_], area: float) -> tuple[NDArray[np.bool_], bool]:
    """Fill holes and then remove islands of fewer than ``area`` pixels; the largest island always stays.

    Returns:
        the mask (H, W) bool and whether it was changed.
    """
    count, regions, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=8)
    small = [label for label in range(1, count) if stats[label, cv2.CC_STAT_AREA] < area]
    if small:
        mask = mask | np.isin(regions, small)
    changed = bool(small)
    count, regions, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    sizes = stats[1:, cv2.CC_STAT_AREA]
    if (sizes < area).any():
        large = [label for label in range(1, count) if sizes[label - 1] >= area] or [int(np.argmax(sizes)) + 1]
        mask, changed = np.isin(regions, large), True
    return mask, changed


def uncompressed_rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return COCO's run lengths of a mask (H, W), column by column, as a list that starts with background."""
    flat = mask.T.reshape(-1)
    ends = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    counts = np.diff(ends).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}
