"""Example images with the contours of their masks, small enough to stand in a page."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.report.summary import Example
from ultrasam.errors import DataError
from ultrasam.geometry.rle import decode_mask, decode_segmentation
from ultrasam.io.images import read_image

# Okabe and Ito's colours for colour-blind readers, the dark ones made lighter for dark images.
PALETTE = ("#E69F00", "#56B4E9", "#F0E442", "#2BC79A", "#FF7A4D", "#E39BC4", "#6F9BFF", "#FFFFFF")
HEIGHT, _WIDEST = 300, 480
_LINE, _QUALITY = 2, 82


def colour_of(category: str, categories: Sequence[str]) -> str:
    """Return the colour of a category, ``#RRGGBB``; after eight categories colours come again."""
    return PALETTE[categories.index(category) % len(PALETTE)]


def draw_example(example: Example, categories: Sequence[str]) -> NDArray[np.uint8]:
    """Return the image with contours, uint8 H x W x 3 RGB, 300 pixels high or at most 480 wide.

    Raises:
        DataError: the image is missing or has another size than its record says.
    """
    pixels = read_image(example.path)
    if pixels.shape[:2] != example.size:
        raise DataError(f"{example.path}: an image of (height, width) {example.size} was expected, found "
                        f"{pixels.shape[:2]}; convert the set again")
    height, width = example.size
    factor = min(HEIGHT / height, _WIDEST / width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    canvas = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    borders = []
    for category, segmentation in example.masks:
        mask = decode_mask(decode_segmentation(segmentation, height, width, where=str(example.path)))
        borders.append((colour_of(category, categories), _contours(mask, size)))
    # All dark rims come first, so that they never cover a neighbour's line.
    for colour, thickness in ((None, _LINE + 2), ("own", _LINE)):
        for own, contours in borders:
            cv2.drawContours(canvas, contours, -1, _rgb(own) if colour else (0, 0, 0), thickness, cv2.LINE_AA)
    return np.asarray(canvas, np.uint8)


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """Return an RGB image as the text of a JPEG ``data:`` address."""
    _, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode('ascii')}"


def _contours(mask: NDArray[np.bool_], size: tuple[int, int]) -> list[NDArray[np.int32]]:
    """Return the borders of a mask, those of its holes included, on a canvas of another size (width, height)."""
    shrinks = size[0] < mask.shape[1]
    soft = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    # Less than half, or structures thinner than a pixel of the small picture would vanish.
    inside = (soft >= (0.25 if shrinks else 0.5)).astype(np.uint8)
    contours, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return [np.asarray(contour, np.int32) for contour in contours]


def _rgb(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue of ``#RRGGBB``."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue
