"""The rule that keeps burnt-in text out of masks: what lies outside of the field of view is never mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ultrasam.errors import PromptError
from ultrasam.inference.prompt import Prompt
from ultrasam.io.fov import field_of_view

# A picture smaller than this part of the image is taken for a mistake of the search.
SMALLEST_PART = 0.05


def find_field(image: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """Return the field of view of an RGB image as (H, W) bool; None where it is the whole image or was not found."""
    field = field_of_view(image)
    part = float(field.mean())
    return None if part == 1 or part < SMALLEST_PART else field


def window_of(field: NDArray[np.bool_] | None, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the box x1, y1, x2, y2 around the field of view; the whole image of ``size`` (h, w) where it is None."""
    if field is None:
        return 0, 0, size[1], size[0]
    rows, columns = np.flatnonzero(field.any(axis=1)), np.flatnonzero(field.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def check_in_field(prompt: Prompt, field: NDArray[np.bool_]) -> None:
    """Refuse a prompt for something outside of the field of view.

    Args:
        prompt: in pixels of the image, already checked by ``check_prompt``.
        field: (H, W) bool.

    Raises:
        PromptError: a positive point lies outside, or no pixel of the box lies inside.
    """
    x1, y1, x2, y2 = window_of(field, (field.shape[0], field.shape[1]))
    where = f"the field of view (x {x1} to {x2 - 1}, y {y1} to {y2 - 1})"
    advice = "where only text and borders are; if it was found wrongly, use clip=False"
    if prompt.points is not None and prompt.labels is not None:
        for x, y in prompt.points[prompt.labels == 1]:
            if not field[int(y), int(x)]:
                raise PromptError(f"the point (x, y) = ({x:g}, {y:g}) lies outside of {where}, {advice}")
    if prompt.box is not None:
        left, top = (int(value) for value in prompt.box[:2])
        right, bottom = (int(np.ceil(value)) for value in prompt.box[2:])
        if not field[top:bottom, left:right].any():
            box = ", ".join(f"{value:g}" for value in prompt.box)
            raise PromptError(f"the box {box} lies outside of {where}, {advice}")
