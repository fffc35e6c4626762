"""Prompts of one object in pixels of the image, and what is refused before the network sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ultrasam.errors import PromptError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Prompt:
    """What one object is asked for with; any combination, at least one.

    Attributes:
        points: (P, 2) float32, x then y, pixels of the original image; pixel (3, 5) is x = 3, y = 5.
        labels: (P,) int64, 1 inside of the object, 0 outside.
        box: (4,) float32 x1, y1, x2, y2, half-open, pixels of the original image.
        logits: (h, w) low-resolution logits of an earlier answer (``Masks.logits``), or of a mask (``Session``).
    """

    points: NDArray[np.float32] | None = None
    labels: NDArray[np.int64] | None = None
    box: NDArray[np.float32] | None = None
    logits: Tensor | None = None

    @classmethod
    def of(
        cls,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        logits: Tensor | None = None,
    ) -> Prompt:
        """Make a prompt of lists or arrays; one point may stand alone, points without labels are inside.

        Raises:
            PromptError: these are not numbers of the right shape; that they fit an image is ``check_prompt``'s.
        """
        xy = None if points is None else _numbers(points, "points")
        if xy is not None and xy.ndim == 1:
            xy = xy[None]
        if labels is not None and xy is None:
            raise PromptError(f"there are labels, {_short(labels)}, but no points; give points (x, y), one per label")
        signs: NDArray[np.float64] | None = None
        if xy is not None:
            signs = np.ones(len(xy)) if labels is None else np.atleast_1d(_numbers(labels, "labels"))
            if not np.isin(signs, (0, 1)).all():
                wrong = signs[~np.isin(signs, (0, 1))].flat[0]
                raise PromptError(f"a point's label is 1 (inside of the object) or 0 (outside), found {wrong:g}")
        return cls(
            None if xy is None else xy.astype(np.float32),
            None if signs is None else signs.astype(np.int64),
            None if box is None else _numbers(box, "box").astype(np.float32),
            logits,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON: ``points``, ``labels``, ``box``, and ``mask`` where there are logits."""
        found: dict[str, Any] = {}
        for name, value in (("points", self.points), ("labels", self.labels), ("box", self.box)):
            if value is not None:
                found[name] = value.tolist()
        return found if self.logits is None else {**found, "mask": True}


def check_prompt(prompt: Prompt, height: int, width: int) -> None:
    """Refuse a prompt that cannot mean anything in its image.

    Args:
        prompt: in pixels of the image.
        height: of the image in pixels.
        width: of the image in pixels.

    Raises:
        PromptError: nothing given, a wrong shape, NaN, outside of the image (a point on x = width is), a reversed or
            empty box, coordinates of 0 to 1, only points outside of the object, a label other than 0 and 1.
    """
    if prompt.points is None and prompt.box is None and prompt.logits is None:
        raise PromptError("the prompt is empty; give at least one point, a box or a mask")
    if prompt.points is not None:
        _check_points(prompt.points, prompt.labels, height, width)
        alone = prompt.box is None and prompt.logits is None
        if alone and not (np.asarray(prompt.labels) == 1).any():
            where = ", ".join(f"({x:g}, {y:g})" for x, y in prompt.points[:3])
            raise PromptError(
                f"all points are negative (label 0): {where}; add a point inside of the object (label 1), a box or a "
                "mask"
            )
    elif prompt.labels is not None:
        raise PromptError(
            f"there are labels, {_short(prompt.labels)}, but no points; give points (x, y), one per label"
        )
    if prompt.box is not None:
        _check_box(prompt.box, height, width)
    if prompt.logits is not None and (prompt.logits.ndim != 2 or not prompt.logits.is_floating_point()):
        raise PromptError(
            f"a mask prompt's logits are a float tensor (h, w), found {prompt.logits.dtype} of the shape "
            f"{tuple(prompt.logits.shape)}; pass those of an earlier answer, or the mask itself as mask="
        )


def _check_points(points: NDArray[Any], labels: NDArray[Any] | None, height: int, width: int) -> None:
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1:] != (2,) or not len(points):
        raise PromptError(f"points have the shape (points, 2), x then y, found the shape {points.shape}")
    if labels is None or np.shape(labels) != (len(points),):
        found = "none" if labels is None else f"labels of the shape {np.shape(labels)}"
        raise PromptError(f"{len(points)} points need {len(points)} labels (1 inside, 0 outside), found {found}")
    if not np.isin(labels, (0, 1)).all():
        wrong = np.asarray(labels)[~np.isin(labels, (0, 1))][0]
        raise PromptError(f"a point's label is 1 (inside of the object) or 0 (outside), found {wrong:g}")
    # NaN is in no range, so it is refused here too.
    inside = (points >= 0).all(axis=1) & (points < (width, height)).all(axis=1)
    if not inside.all():
        number = int(np.argmin(inside))
        x, y = points[number]
        raise PromptError(
            f"point {number + 1} of {len(points)}, (x, y) = ({x:g}, {y:g}), is not in the image of {width} x {height} "
            f"pixels; give x from 0 to {width - 1} and y from 0 to {height - 1}"
        )
    _require_pixels(points, f"the points, {_short(points)},", height, width)


def _check_box(box: NDArray[Any], height: int, width: int) -> None:
    box = np.asarray(box)
    if box.shape != (4,):
        raise PromptError(f"a box is four numbers x1, y1, x2, y2, found the shape {box.shape}")
    x1, y1, x2, y2 = (float(value) for value in box)
    text = f"the box x1, y1, x2, y2 = {x1:g}, {y1:g}, {x2:g}, {y2:g}"
    if not np.isfinite(box).all():
        raise PromptError(f"{text} has a value that is no number; give four numbers in pixels")
    if x2 < x1 or y2 < y1:
        raise PromptError(f"{text} is reversed; give the left upper corner first (not x, y, width, height)")
    if x2 == x1 or y2 == y1:
        raise PromptError(f"{text} is empty; x2 must be larger than x1, and y2 than y1")
    if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
        raise PromptError(
            f"{text} is not in the image of {width} x {height} pixels; give x from 0 to {width} and y from 0 to "
            f"{height}"
        )
    _require_pixels(box, text, height, width)


def _require_pixels(values: NDArray[Any], what: str, height: int, width: int) -> None:
    """Refuse numbers that can only be fractions of the image's sides."""
    if min(height, width) > 1 and values.max() <= 1 and (values != np.floor(values)).any():
        raise PromptError(
            f"{what} lies between 0 and 1, but coordinates are pixels of the image of {width} x {height}; "
            f"multiply x by {width} and y by {height}"
        )


def _numbers(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return an array of finite or infinite real numbers."""
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "iufb":
            raise ValueError(f"the type {array.dtype}")
    except (ValueError, TypeError) as error:
        raise PromptError(f"{name} must be numbers in rows of equal length, found {_short(values)}") from error
    return array.astype(np.float64)


def _short(values: object, limit: int = 60) -> str:
    array: Any = values.tolist() if isinstance(values, np.ndarray) else values
    text = str(list(array) if isinstance(array, Sequence) and not isinstance(array, str) else array)
    return text if len(text) <= limit else text[:limit] + "..."
