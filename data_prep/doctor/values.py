"""JSON values of any kind, made safe to look at and to write."""

from __future__ import annotations

import math
from typing import Any

from ultrasam.datasets.coco_ids import IdValue, id_key
from ultrasam.errors import DataError
from ultrasam.io.images import MAX_PIXELS

Size = tuple[int, int]
Box = tuple[float, float, float, float]

# Nothing in a COCO file is nested deeper; Python's own recursion ends at about a thousand.
_DEPTH = 20
# The rasteriser of polygons takes memory by the length of their edges.
_MAX_SIDE = 65_500
# A coordinate beyond this is no number of pixels, and arithmetic with it may overflow.
_MAX_NUMBER = 1e12


def tame(value: Any, *, finite: bool, depth: int = 0) -> Any:
    """Return the value without text that is not Unicode and without excessive nesting; itself if it has neither.

    Args:
        value: as parsed from JSON.
        finite: also replace NaN and infinity by None.
        depth: how deep the value is in the document.
    """
    if isinstance(value, str):
        return _unicode(value)
    if isinstance(value, float):
        return None if finite and not math.isfinite(value) else value
    if isinstance(value, (list, dict)) and depth >= _DEPTH:
        return None
    if isinstance(value, list):
        if not finite and set(map(type, value)) <= {int, float}:
            return value
        items = [tame(item, finite=finite, depth=depth + 1) for item in value]
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    if isinstance(value, dict):
        pairs = {_unicode(key): tame(item, finite=finite, depth=depth + 1) for key, item in value.items()}
        return value if all(pairs.get(key) is item and key in pairs for key, item in value.items()) else pairs
    return value


def plain(value: Any) -> Any:
    """Return the value with NaN and infinity as text, so that JSON can hold it."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def key_of(value: Any) -> IdValue | None:
    """Return the value under which an id is looked up, None where it is no id at all."""
    try:
        return id_key(value, "")
    except DataError:
        # The caller reports it, with the record that it stands in.
        return None


def is_number(value: Any) -> bool:
    """Whether this is a finite number of reasonable size."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -_MAX_NUMBER < value < _MAX_NUMBER


def size_of(height: Any, width: Any) -> Size | None:
    """Return (height, width) in pixels, None where they are not whole numbers of a possible image."""
    if not (is_number(height) and is_number(width)) or height % 1 or width % 1:
        return None
    fits = 1 <= height <= _MAX_SIDE and 1 <= width <= _MAX_SIDE and height * width <= MAX_PIXELS
    return (int(height), int(width)) if fits else None


def box_of(value: Any) -> Box | None:
    """Return the corners x1, y1, x2, y2 of a COCO box x, y, width, height; None where it has no extent."""
    if not isinstance(value, list) or len(value) != 4 or not all(is_number(number) for number in value):
        return None
    x, y, width, height = (float(number) for number in value)
    return (x, y, x + width, y + height) if width > 0 and height > 0 else None


def scaled(box: Box, scale: tuple[float, float]) -> Box:
    """Return a box with its x and y multiplied by (x, y)."""
    return box[0] * scale[0], box[1] * scale[1], box[2] * scale[0], box[3] * scale[1]


def same_shape(first: Size, second: Size) -> bool:
    """Whether two sizes have the same ratio of sides within 3 %."""
    return 0.97 < (first[0] * second[1]) / (first[1] * second[0]) < 1.03


def near(first: Box, second: Box, tolerance: float) -> bool:
    """Whether no edge of two boxes is farther apart than the tolerance in pixels."""
    return all(abs(a - b) <= tolerance for a, b in zip(first, second, strict=True))


def _unicode(text: str) -> str:
    if text.isascii():
        return text
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return text if clean == text else clean
