"""The field of view: where the picture of the scanner is, as against frame, text and black surround."""

from __future__ import annotations

import cv2
import numpy as np

# Of 255. Surrounds of JPEG and video files are not exactly black.
DARK = 10
# A frame of one or two pixels, letters and calipers are thinner than this.
_OPENING = 5
_MARGIN = 8


def field_of_view(pixels: np.ndarray) -> np.ndarray:
    """Return the bool H x W field of view: the convex hull of the largest bright component.

    Black inside the hull (blood, cysts, shadow) belongs to it, which a test for black pixels gets wrong.

    Args:
        pixels: uint8 H x W x 3.

    Returns:
        the hull; all True where nothing is bright.
    """
    height, width = pixels.shape[:2]
    bright = (pixels.max(axis=2) > DARK).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_OPENING, _OPENING))
    # Closing first joins speckle, opening then cuts off letters and frames that touch the picture.
    joined = cv2.morphologyEx(bright, cv2.MORPH_CLOSE, kernel)
    opened = cv2.morphologyEx(joined, cv2.MORPH_OPEN, kernel)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
    if count < 2:
        return np.ones((height, width), bool)
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    rows, columns = np.nonzero(labels == largest)
    hull = cv2.convexHull(np.column_stack([columns, rows]).astype(np.int32))
    filled = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(filled, hull, 1)
    return filled.astype(bool)


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
    rows, columns = np.flatnonzero(kept.any(axis=1)), np.flatnonzero(kept.any(axis=0))
    box = (max(int(columns[0]) - _MARGIN, 0), max(int(rows[0]) - _MARGIN, 0),
           min(int(columns[-1]) + 1 + _MARGIN, width), min(int(rows[-1]) + 1 + _MARGIN, height))
    return None if box == (0, 0, width, height) else box
