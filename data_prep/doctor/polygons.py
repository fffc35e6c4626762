"""Polygons of any kind, made sound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_prep.doctor.values import Box, Size, near
from ultrasam.datasets.coco import BOX_TOLERANCE
from ultrasam.geometry.polygon import clip_polygon

ODD = "polygon with an odd number of values"
FEW = "polygon of fewer than three points"
NOT_NUMBERS = "polygon with NaN, null or text"
FAR = "polygon with points far outside the image"
OUT = "polygon that leaves the image"
ALL_OUT = "polygon outside the image"
FLAT = "polygon not in a list of polygons"
PAIRS = "polygon of [x, y] pairs"
MIXED = "polygons mixed with other values"

# Beyond the border by less than this is rounding, which every reader copes with.
_OVERSHOOT = 1.0


@dataclass
class Mended:
    """A segmentation after repair.

    Attributes:
        segmentation: polygons or RLE; None where no mask could be made.
        notes: (fault, what was done in words that follow a number) of everything that was wrong.
        blank: there was nothing to begin with.
    """

    segmentation: list[Any] | dict[str, Any] | None
    notes: list[tuple[str, str]] = field(default_factory=list)
    blank: bool = False


def mend_polygons(value: Sequence[Any], size: Size, scale: tuple[float, float], box: Box | None) -> Mended:
    """Make polygons sound; parts of which nothing can be made are dropped.

    Args:
        value: the list under ``segmentation``.
        size: (height, width) of the image.
        scale: (x, y) that coordinates are multiplied by.
        box: corners of the given box before scaling, which settles which value of an odd number is too many.
    """
    mended = Mended(None)
    parts = _as_parts(value, mended)
    changed = bool(mended.notes) or scale != (1.0, 1.0)
    kept: list[list[float]] = []
    for part in parts:
        before = len(mended.notes)
        numbers = _mend_part(part, size, scale, box if len(parts) == 1 else None, mended)
        if numbers is not None:
            kept.append(numbers)
        changed |= numbers is None or len(mended.notes) > before
    if kept:
        mended.segmentation = kept if changed else list(value)
    return mended


def rectangle(box: Box, size: Size) -> list[list[float]] | None:
    """Return the polygon of a box cut to the image; None where nothing of it is inside."""
    height, width = size
    x1, y1, x2, y2 = max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height))
    return [[x1, y1, x2, y1, x2, y2, x1, y2]] if x2 > x1 and y2 > y1 else None


def _as_parts(value: Sequence[Any], mended: Mended) -> list[list[Any]]:
    """Return the polygons, each a flat list."""
    lists = [part for part in value if isinstance(part, list)]
    if not lists:
        mended.notes.append((FLAT, "put into a list"))
        return [list(value)]
    if len(lists) < len(value):
        mended.notes.append((MIXED, "polygons kept, other values dropped"))
    if len(lists) > 2 and all(_is_pair(part) for part in lists):
        mended.notes.append((PAIRS, "made x, y, x, y, ..."))
        return [[number for pair in lists for number in pair]]
    parts = []
    for part in lists:
        if part and all(_is_pair(pair) for pair in part):
            mended.notes.append((PAIRS, "made x, y, x, y, ..."))
            part = [number for pair in part for number in pair]
        parts.append(part)
    return parts


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and not any(isinstance(item, (list, dict)) for item in value)


def _mend_part(
    part: Sequence[Any], size: Size, scale: tuple[float, float], box: Box | None, mended: Mended
) -> list[float] | None:
    """Return the sound form of one polygon, None where there is none; notes what was done."""
    values = [_number(value) for value in part]
    if len(values) % 2:
        even = _even(values, box)
        mended.notes.append((ODD, "repaired: the surplus value dropped" if even else "dropped"))
        if even is None:
            return None
        values = even
    points = np.array(values, np.float64).reshape(-1, 2) * scale
    if len(points) >= 3 and not all(_is_finite_number(value) for value in part):
        finite = np.isfinite(points).all(axis=1)
        mended.notes.append((NOT_NUMBERS, "made numbers" if finite.all() else "repaired without those points"))
        points = points[finite]
    return _inside(points, size, mended)


def _is_finite_number(value: Any) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _inside(points: np.ndarray, size: Size, mended: Mended) -> list[float] | None:
    """Return a polygon (P, 2) cut to the image, None where too little of it is left."""
    height, width = size
    limits = np.array([width, height], np.float64)
    # A vertex farther out than a whole image is damage; cutting there would draw a shape that nobody drew.
    far = ((points < -limits) | (points > 2 * limits)).any(axis=1)
    if far.any():
        mended.notes.append((FAR, "repaired without those points" if (~far).sum() >= 3 else "dropped"))
        points = points[~far]
    if len(points) < 3:
        if not far.any():
            mended.notes.append((FEW, "dropped"))
        return None
    if (points < -_OVERSHOOT).any() or (points > limits + _OVERSHOOT).any():
        points = clip_polygon(points, height, width)
        mended.notes.append((OUT, "cut at the border") if len(points) else (ALL_OUT, "dropped"))
    return points.reshape(-1).tolist() if len(points) else None


def _even(values: Sequence[float], box: Box | None) -> list[float] | None:
    """Return the values without the one that is too many, None where the box says that it is neither end."""
    candidates = [list(values[:-1]), list(values[1:])]
    if box is None:
        return candidates[0] or None
    return next((found for found in candidates if (around := _around(found)) and near(around, box, BOX_TOLERANCE)),
                None)


def _around(values: Sequence[float]) -> Box | None:
    x, y = values[0::2], values[1::2]
    return (min(x), min(y), max(x), max(y)) if x and y else None


def _number(value: Any) -> float:
    """Return a coordinate, NaN for what is none."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return math.nan
    if isinstance(value, float) and math.isfinite(value):
        # Far beyond every image; the number itself must not overflow later.
        return max(-1e12, min(1e12, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return float(max(-10**12, min(10**12, value)))
    return math.nan
