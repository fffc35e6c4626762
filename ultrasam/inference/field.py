"""The rule that keeps burnt-in text out of masks, and what an image is cropped to.

Outside of the field of view, *ink* is what differs clearly from the surround there: letters, scales, logos, buttons.
Ink is never mask. The rest of the surround is black, and may be mask: a skull's outline goes on where the fan ends, and
where the search takes a deep shadow for surround, a lesion in it is not cut. Where an image is cropped to its field of
view, nothing outside of it is mask.

On 267 annotated images of six public sets, ink takes 0.01 % of the annotated area on average and 1.6 % at most, where a
cut at the border of the field of view takes 0.2 % and 25 %.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ultrasam.errors import PromptError
from ultrasam.geometry.extent import extent_of
from ultrasam.inference.prompt import Prompt
from ultrasam.io.fov import field_of_view

# A picture smaller than this part of the image is taken for a mistake of the search.
SMALLEST_PART = 0.05
# Ink differs from the median of the surround by more than this, of 255.
CONTRAST = 40
# Ink is grown by this part of the longer side, so that nothing between the strokes of a letter is left.
GROWTH = 0.01


def find_field(image: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """Return the field of view of an RGB image as (H, W) bool; None where it is the whole image or was not found."""
    field = field_of_view(image)
    part = float(field.mean())
    return None if part == 1 or part < SMALLEST_PART else field


def find_ink(image: NDArray[np.uint8], field: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (H, W) bool, the ink outside of the field of view (H, W) of an RGB image."""
    outside = ~field
    # A sixteenth of the pixels tells the median as well.
    surround = np.median(image[::4, ::4][outside[::4, ::4]], axis=0) if outside[::4, ::4].any() else np.zeros(3)
    plain = np.full(image.shape, np.rint(surround), np.uint8)
    ink = (cv2.absdiff(image, plain) > CONTRAST).any(axis=2)
    ink &= outside
    radius = max(2, round(GROWTH * max(field.shape)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    grown: NDArray[np.bool_] = cv2.dilate(ink.view(np.uint8), kernel).view(bool) & outside
    return grown


def window_of(field: NDArray[np.bool_] | None, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the box x1, y1, x2, y2 around the field of view; the whole image of ``size`` (h, w) where it is None."""
    return (None if field is None else extent_of(field)) or (0, 0, size[1], size[0])


def check_not_blocked(prompt: Prompt, field: NDArray[np.bool_], blocked: NDArray[np.bool_]) -> None:
    """Refuse a prompt for what can never be mask.

    Args:
        prompt: in pixels of the image, already checked by ``check_prompt``.
        field: (H, W) bool, the field of view.
        blocked: (H, W) bool, what is never mask.

    Raises:
        PromptError: a positive point lies on what is blocked, or a box around some of it does not reach the field.
    """
    x1, y1, x2, y2 = window_of(field, (field.shape[0], field.shape[1]))
    where = f"outside of the field of view (x {x1} to {x2 - 1}, y {y1} to {y2 - 1}), where text and borders are"
    advice = "mark something inside; if the field of view was found wrongly, use clip=False"
    if prompt.points is not None and prompt.labels is not None:
        for x, y in prompt.points[prompt.labels == 1]:
            if blocked[int(y), int(x)]:
                raise PromptError(f"the point (x, y) = ({x:g}, {y:g}) lies {where}; {advice}")
    if prompt.box is not None:
        left, top = (int(value) for value in prompt.box[:2])
        right, bottom = (int(np.ceil(value)) for value in prompt.box[2:])
        part = np.s_[top:bottom, left:right]
        if blocked[part].any() and not field[part].any():
            box = ", ".join(f"{value:g}" for value in prompt.box)
            raise PromptError(f"the box x1, y1, x2, y2 = {box} lies {where}; {advice}")
