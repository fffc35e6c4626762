"""Pictures of a prompt, the predicted mask and the true one, and sheets of such pictures."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ultrasam.errors import DataError, PromptError
from ultrasam.visualization import drawing
from ultrasam.visualization.drawing import Canvas
from ultrasam.visualization.sheet import contact_sheet

__all__ = ["contact_sheet", "draw_overlay"]

# Smaller images are enlarged to this long side in pixels, so that lines and text do not hide them.
MIN_SIDE = 640
OPACITY = 0.38


def draw_overlay(
    image: npt.NDArray[np.uint8],
    *,
    prediction: npt.NDArray[np.bool_] | None = None,
    truth: npt.NDArray[np.bool_] | None = None,
    points: npt.ArrayLike | None = None,
    point_labels: npt.ArrayLike | None = None,
    boxes: npt.ArrayLike | None = None,
    score: float | None = None,
    title: str | None = None,
) -> npt.NDArray[np.uint8]:
    """Draw a prediction (blue, filled), the truth (orange outline) and the prompts on an image.

    Args:
        image: uint8 (H, W, 3) RGB.
        prediction: bool (H, W), or (N, H, W) for several objects.
        truth: The same for the true masks; N may differ.
        points: (P, 2), x, y in pixels of `image`.
        point_labels: (P,) 1 for points inside the object (green, plus; the default), 0 for points outside
            (vermilion, minus).
        boxes: (B, 4), x1, y1, x2, y2 in pixels of `image`, half-open (yellow, dashed). Rows of NaN are left
            out.
        score: Predicted IoU, written on the right of a strip above the image.
        title: Written on the left of that strip, shortened in the middle where it does not fit.

    Returns:
        uint8 (H', W', 3) RGB: the image, its long side at least 640 pixels, and above it the strip, where
        there is a title or a score.

    Raises:
        DataError: The image is not uint8 RGB, or a mask has another size.
        PromptError: Points, labels or boxes have another shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise DataError(
            f"An image to draw on must be uint8 height x width x 3 (RGB), found {image.dtype} "
            f"{image.shape}: read it with ultrasam.io.images.read_image."
        )
    canvas = _enlarged(image)
    scale = np.array([canvas.shape[1] / image.shape[1], canvas.shape[0] / image.shape[0]])
    unit = max(canvas.shape[:2]) / MIN_SIDE
    width = max(2, round(2 * unit))
    for mask in _masks(prediction, image, "prediction"):
        soft = _soft(mask, canvas)
        drawing.fill(canvas, _coverage(soft, float(scale.min())), drawing.PREDICTION, OPACITY)
        drawing.stroke(canvas, _outlines(soft), drawing.PREDICTION, width)
    for mask in _masks(truth, image, "truth"):
        drawing.stroke(canvas, _outlines(_soft(mask, canvas)), drawing.TRUTH, width)
    for box in _rows(boxes, 4, "Boxes"):
        if np.isfinite(box).all():
            _draw_box(canvas, box.reshape(2, 2) * scale - 0.5, width, 9 * unit)
    for (x, y), positive in _labelled(points, point_labels):
        # A point is the index of a pixel, whose centre lies half a pixel further.
        u, v = (np.array([x, y]) + 0.5) * scale - 0.5
        drawing.point_mark(canvas, u, v, positive, 8 * unit)
    size = max(13, round(19 * unit))
    if not title and score is None:
        return canvas
    return drawing.headed(canvas, title or "", "" if score is None else f"score {score:.2f}", size)


def _enlarged(image: npt.NDArray[np.uint8]) -> Canvas:
    """Return a copy whose long side is at least MIN_SIDE."""
    height, width = image.shape[:2]
    factor = MIN_SIDE / max(height, width)
    if factor <= 1:
        return np.ascontiguousarray(image).copy()
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def _masks(masks: npt.NDArray[np.bool_] | None, image: npt.NDArray[np.uint8], name: str) -> list[Any]:
    """Return the masks that have any pixel, each bool (H, W)."""
    if masks is None:
        return []
    stack = np.asarray(masks)
    stack = stack[None] if stack.ndim == 2 else stack
    if stack.ndim != 3 or stack.shape[1:] != image.shape[:2] or stack.dtype != np.bool_:
        raise DataError(
            f"The {name} to draw must be boolean and of the image's size {image.shape[:2]} (height, width), "
            f"found {stack.dtype} {np.shape(masks)}: bring masks to the original size of their image."
        )
    return [mask for mask in stack if mask.any()]


def _soft(mask: npt.NDArray[np.bool_], canvas: Canvas) -> npt.NDArray[np.float32]:
    """Return the mask on the canvas's grid; its border lies at 0.5."""
    size = (canvas.shape[1], canvas.shape[0])
    return np.asarray(cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR))


def _coverage(soft: npt.NDArray[np.float32], scale: float) -> npt.NDArray[np.float32]:
    """Turn the ramp at the border, `scale` pixels wide, into one of a single pixel."""
    return np.clip((soft - 0.5) * scale + 0.5, 0, 1)


def _outlines(soft: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float64]]:
    """Return the closed borders of a mask, those of its holes included, x, y in canvas pixels."""
    inside = (soft >= 0.5).astype(np.uint8)
    contours, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    flat = [np.asarray(contour, dtype=np.float64).reshape(-1, 2) for contour in contours]
    return [np.concatenate([contour, contour[:1]]) for contour in flat]


def _draw_box(canvas: Canvas, corners: npt.NDArray[np.float64], width: int, dash: float) -> None:
    (x1, y1), (x2, y2) = corners
    sides = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]])
    for start, end in pairwise(sides):
        drawing.stroke(canvas, drawing.dashes(np.stack([start, end]), dash), drawing.BOX, width)


def _rows(values: npt.ArrayLike | None, columns: int, name: str) -> npt.NDArray[np.float64]:
    if values is None:
        return np.zeros((0, columns))
    rows = np.asarray(values, dtype=np.float64)
    if rows.size == 0:
        return np.zeros((0, columns))
    if rows.ndim != 2 or rows.shape[1] != columns:
        raise PromptError(f"{name} to draw must have the shape (n, {columns}), found {rows.shape}.")
    return rows


def _labelled(
    points: npt.ArrayLike | None, labels: npt.ArrayLike | None
) -> list[tuple[tuple[float, float], bool]]:
    """Pair finite points with whether they are positive."""
    rows = _rows(points, 2, "Points")
    signs = np.ones(len(rows)) if labels is None else np.asarray(labels).reshape(-1)
    if len(signs) != len(rows):
        raise PromptError(
            f"There are {len(rows)} points to draw but {len(signs)} point labels: give one each."
        )
    return [
        ((float(x), float(y)), bool(sign > 0))
        for (x, y), sign in zip(rows, signs, strict=True)
        if math.isfinite(x + y)
    ]
