"""The field of view: where the picture of the scanner is, as against frame, text and black surround."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# The picture is looked for in a reduced image of about this many pixels along its longer side.
_WORKING = 400
# Bright is what exceeds the surround by 4 of 255, since those of JPEG and video files are not exactly black. The
# surround is the value that 5 % of the pixels do not exceed; where the picture fills the frame, 10 of 255 is bright.
_SURROUND, _ABOVE, _BRIGHT = 0.05, 4, 10
# Sides of kernels in the reduced image: gaps between speckles are closed, frames and lines of text opened away.
_CLOSING, _OPENING = 3, 7
# A shadow can cut the picture in two; text and grey bars are smaller than this part of it.
_SECOND = 0.25
_SMALLEST = 16


def field_of_view(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the bool H x W field of view: the convex hull of the largest bright component.

    Black inside the hull (blood, cysts, shadow) belongs to it, which a test for black pixels gets wrong. Components
    of at least a quarter of the largest belong to it too. The border lies up to a 200th of the longer side further
    out than the picture, so that labels along it are not cut.

    Args:
        pixels: uint8 H x W x 3.

    Returns:
        the hull; all True where nothing is bright, and for images of less than 16 pixels along a side.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < _SMALLEST:
        return np.ones((height, width), bool)
    step = max(1, round(max(height, width) / _WORKING))
    rows, columns = max(1, height // step), max(1, width // step)
    # The mean over a reduced pixel is what tells noise in the surround from speckle.
    small = cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_AREA)
    red, green, blue = cv2.split(small)
    value: NDArray[Any] = cv2.max(cv2.max(red, green), blue)
    points = _picture(value)
    if points is None:
        return np.ones((height, width), bool)
    hull = cv2.convexHull(points)[:, 0]
    # From reduced pixels to the first and last pixels that they were made of.
    first = hull * (width / columns, height / rows)
    last = np.ceil((hull + 1) * (width / columns, height / rows)) - 1
    corners = [np.column_stack([x[:, 0], y[:, 1]]) for x in (first, last) for y in (first, last)]
    outline = cv2.convexHull(np.concatenate(corners).astype(np.int32))
    filled = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(filled, outline, 1)
    return filled.view(bool)


def _picture(value: NDArray[np.uint8]) -> NDArray[np.int32] | None:
    """Return the (x, y) of the border of the picture in a reduced grey image, int32 N x 1 x 2; None without picture."""
    counts = np.bincount(value.ravel(), minlength=256).cumsum()
    surround = int(np.searchsorted(counts, _SURROUND * value.size))
    threshold = min(surround + _ABOVE, _BRIGHT)
    mask: np.ndarray = (value > threshold).astype(np.uint8)
    # Closing first joins speckle, opening then cuts off letters and frames that touch the picture.
    for operation, side in ((cv2.MORPH_CLOSE, _CLOSING), (cv2.MORPH_OPEN, _OPENING)):
        mask = cv2.morphologyEx(mask, operation, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count < 2:
        return None
    areas = stats[1:, cv2.CC_STAT_AREA]
    kept = np.concatenate([[0], areas >= _SECOND * areas.max()]).astype(np.uint8)
    outlines, _ = cv2.findContours(kept[labels], cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return np.concatenate(outlines)
