"""The crop of images that are mostly background; the field of view itself is found by `ultrasam.io.fov`."""

from __future__ import annotations

import numpy as np

from ultrasam.geometry.extent import extent_of
from ultrasam.io.fov import field_of_view

__all__ = ["background_crop", "field_of_view"]

_MARGIN = 8


def background_crop(
    fov: np.ndarray, masks: list[tuple[str, np.ndarray]]
) -> tuple[int, int, int, int] | None:
    """Return the crop x1, y1, x2, y2 (half-open) of an image of which more than half is background, else None.

    The crop is the box around field of view and masks, with a margin of 8 pixels where there is room.
    """
    height, width = fov.shape
    if 2 * int(fov.sum()) >= height * width:
        return None
    kept = fov.copy()
    for _, mask in masks:
        kept |= mask
    x1, y1, x2, y2 = extent_of(kept) or (0, 0, width, height)
    box = (max(x1 - _MARGIN, 0), max(y1 - _MARGIN, 0), min(x2 + _MARGIN, width), min(y2 + _MARGIN, height))
    return None if box == (0, 0, width, height) else box
