"""Strokes, marks and text in colours that colour-blind readers tell apart (Okabe and Ito)."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Canvas = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)
PANEL: Colour = (22, 24, 28)
MUTED: Colour = (176, 180, 186)
PREDICTION: Colour = (86, 180, 233)  # sky blue
TRUTH: Colour = (230, 159, 0)  # orange
POSITIVE: Colour = (0, 158, 115)  # bluish green
NEGATIVE: Colour = (213, 94, 0)  # vermilion
BOX: Colour = (240, 228, 66)  # yellow

# OpenCV takes fixed-point coordinates: this many binary digits are fractions of a pixel.
_BITS = 4


def stroke(canvas: Canvas, curves: Sequence[npt.NDArray[np.float64]], colour: Colour, width: int) -> None:
    """Draw curves (P, 2), x, y in canvas pixels, on a dark rim that keeps them visible on bright tissue."""
    fixed = [np.round(curve * 2**_BITS).astype(np.int32).reshape(-1, 1, 2) for curve in curves]
    for shade, thickness in ((BLACK, width + 2), (colour, width)):
        cv2.polylines(canvas, fixed, False, shade, thickness, cv2.LINE_AA, _BITS)


def dashes(curve: npt.NDArray[np.float64], length: float) -> list[npt.NDArray[np.float64]]:
    """Cut a curve (P, 2) into dashes of about this length in pixels, with gaps of 0.7 of it."""
    steps = np.linalg.norm(np.diff(curve, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    total = float(along[-1])
    if total <= 2 * length:
        return [curve]
    count = max(2, round(total / (1.7 * length)))
    starts = np.arange(count) * total / count
    parts = []
    for start in starts:
        at = np.linspace(start, start + total / count / 1.7, max(2, int(length)))
        parts.append(np.stack([np.interp(at, along, curve[:, 0]), np.interp(at, along, curve[:, 1])], axis=1))
    return parts


def point_mark(canvas: Canvas, x: float, y: float, positive: bool, radius: float) -> None:
    """Draw a disc at canvas position x, y: green with a plus, or vermilion with a minus."""
    one = 2**_BITS
    centre = (round(x * one), round(y * one))
    rings = ((BLACK, radius + 3), (WHITE, radius + 2), (POSITIVE if positive else NEGATIVE, radius))
    for colour, size in rings:
        cv2.circle(canvas, centre, round(size * one), colour, cv2.FILLED, cv2.LINE_AA, _BITS)
    arm = radius * 0.58
    width = max(2, round(radius / 3.5))
    bars = [np.array([[x - arm, y], [x + arm, y]])]
    if positive:
        bars.append(np.array([[x, y - arm], [x, y + arm]]))
    fixed = [np.round(bar * one).astype(np.int32).reshape(-1, 1, 2) for bar in bars]
    cv2.polylines(canvas, fixed, False, WHITE, width, cv2.LINE_AA, _BITS)


def fill(canvas: Canvas, coverage: npt.NDArray[np.float32], colour: Colour, opacity: float) -> None:
    """Lay a colour over the canvas where `coverage` (H, W) is 1, thinner where it is less."""
    weight = (opacity * coverage)[:, :, None]
    mixed = canvas * (1 - weight) + np.array(colour, dtype=np.float32) * weight
    canvas[...] = np.round(mixed).astype(np.uint8)


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    # Pillow's own font knows ASCII only; matplotlib carries one with most scripts. It is found without importing it.
    found = importlib.util.find_spec("matplotlib")
    if found is not None and found.origin is not None:
        path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(str(path), round(0.92 * size))
    return ImageFont.load_default(size)


def text_size(text: str, size: int) -> tuple[int, int]:
    """Return height and width in pixels that a line takes at a font size."""
    left, _, right, _ = _font(size).getbbox(text)
    _, top, _, bottom = _font(size).getbbox("Ag|")
    return round(bottom + top), round(right - left)


def shortened(text: str, size: int, width: int) -> str:
    """Return the text, with its middle left out where it is wider than `width` pixels."""
    if text_size(text, size)[1] <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        short = f"{text[: (kept + 1) // 2].rstrip()}...{text[len(text) - kept // 2 :].lstrip()}"
        if text_size(short, size)[1] <= width:
            return short
    return ""


def write_text(canvas: Canvas, text: str, x: int, y: int, size: int, colour: Colour = WHITE) -> None:
    """Write a line whose top left corner is at x, y."""
    picture = Image.fromarray(canvas)
    ImageDraw.Draw(picture).text((x, y), text, font=_font(size), fill=colour)
    canvas[...] = np.asarray(picture)


def headed(canvas: Canvas, left: str, right: str, size: int) -> Canvas:
    """Return the canvas with a dark strip of text above it, which therefore hides nothing of the image."""
    pad = max(4, size // 3)
    width = canvas.shape[1]
    right = shortened(right, size, width - 2 * pad)
    taken = text_size(right, size)[1] + 2 * pad if right else 0
    left = shortened(left, size, width - 2 * pad - taken)
    strip = np.empty((text_size("Ag", size)[0] + 2 * pad, width, 3), dtype=np.uint8)
    strip[...] = PANEL
    if left:
        write_text(strip, left, pad, pad, size)
    if right:
        write_text(strip, right, width - taken + pad, pad, size)
    return np.concatenate([strip, canvas])
