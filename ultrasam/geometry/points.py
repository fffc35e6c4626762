"""Clicks and boxes taken from a mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from ultrasam.errors import PromptError
from ultrasam.geometry.extent import extent_of


def box_of_mask(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Tight half-open box x1, y1, x2, y2 in pixels around a mask bool (H, W).

    Raises:
        PromptError: the mask is empty, or not a boolean array of two dimensions.
    """
    x1, y1, x2, y2 = _extent(mask)
    return float(x1), float(y1), float(x2), float(y2)


def deepest_point(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """The pixel of a mask that lies farthest from the background and from the image border.

    Of several such pixels the one nearest to the centroid is taken, then the first in reading order, so
    that a line is clicked in its middle and the answer never varies.

    Args:
        mask: bool (H, W).

    Returns:
        x, y of a pixel inside the mask.

    Raises:
        PromptError: the mask is empty, or not a boolean array of two dimensions.
    """
    x1, y1, x2, y2 = _extent(mask)
    # Everything around the tight box is background or outside of the image: one ring of zeros says so.
    tight = np.pad(mask[y1:y2, x1:x2], 1)
    depth = distance_transform_edt(tight)
    ys, xs = np.nonzero(depth == depth.max())
    inside_y, inside_x = np.nonzero(tight)
    distance = (xs - inside_x.mean()) ** 2 + (ys - inside_y.mean()) ** 2
    # Rounded, so that the order of a floating-point sum cannot decide a tie.
    best = int(np.argmin(np.round(distance, 6)))
    return int(xs[best]) - 1 + x1, int(ys[best]) - 1 + y1


def centroid_point(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Mean x, y of the pixels of a mask bool (H, W); it may lie outside of a ring or a crescent.

    Raises:
        PromptError: the mask is empty, or not a boolean array of two dimensions.
    """
    _extent(mask)
    ys, xs = np.nonzero(mask)
    return float(xs.mean()), float(ys.mean())


def random_point(mask: NDArray[np.bool_], rng: np.random.Generator) -> tuple[int, int]:
    """A pixel x, y of a mask bool (H, W), all with the same probability.

    Raises:
        PromptError: the mask is empty, or not a boolean array of two dimensions.
    """
    _extent(mask)
    inside = np.flatnonzero(mask)
    y, x = divmod(int(inside[rng.integers(inside.size)]), mask.shape[1])
    return x, y


def _extent(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    if not isinstance(mask, np.ndarray) or mask.ndim != 2 or mask.dtype != np.bool_:
        kind = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise PromptError(f"a prompt is taken from a boolean mask of shape (height, width), found {kind}")
    found = extent_of(mask)
    if found is None:
        raise PromptError(
            f"no prompt can be taken from an empty mask ({mask.shape[0]} x {mask.shape[1]}); "
            "leave the object out"
        )
    return found
