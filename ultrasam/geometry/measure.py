"""Area, diameters, perimeter, centroid and box of a mask, in pixels and, where the spacing is known, in millimetres.

Diameters are those of the convex hull of the mask, of all its parts, whose border runs half way between the outermost
pixels inside and their neighbours outside along rows and columns. The long diameter is the maximum Feret diameter: the
largest distance between two points of it. The short diameter is the longest line across it that is perpendicular to
the long one, as lesions are measured by hand (WHO Handbook for Reporting Results of Cancer Treatment, 1979).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from ultrasam.errors import DataError
from ultrasam.geometry.extent import extent_of

Vertices = NDArray[np.float64]


@dataclass(frozen=True)
class Measures:
    """Measures of one mask. Those in mm are None where the spacing is not known; diameters of an empty mask are 0.

    Attributes:
        area_px: number of pixels.
        area_mm2: area in square millimetres.
        long_px: maximum Feret diameter in pixels.
        long_mm: the same in mm, found in mm: where pixels are not square it may have another direction.
        short_px: longest line perpendicular to the long diameter, in pixels.
        short_mm: longest line perpendicular to the long diameter in mm, in mm.
        perimeter_px: length of the border, of holes and along the image's edge too, in pixels: Crofton's formula in
            four directions, right to about 2 % for round objects (3 pixels for small ones), up to 5 % too short for
            straight edges along the axes; less exact where pixels are far from square.
        perimeter_mm: the same in mm.
        centroid: mean (x, y) of the pixels; None for an empty mask.
        box: half-open (x1, y1, x2, y2) around the pixels; zeros for an empty mask.
        long_ends: the two ends (x, y) of the long diameter (of the one in mm, where there is one), in the coordinates
            of pixel indices. None for an empty mask.
    """

    area_px: int
    area_mm2: float | None
    long_px: float
    long_mm: float | None
    short_px: float
    short_mm: float | None
    perimeter_px: float
    perimeter_mm: float | None
    centroid: tuple[float, float] | None
    box: tuple[int, int, int, int]
    long_ends: tuple[tuple[float, float], tuple[float, float]] | None

    def to_dict(self) -> dict[str, Any]:
        """Return the measures by name, ready for JSON."""
        return asdict(self)


def measure(mask: NDArray[np.bool_], spacing: tuple[float, float] | None = None) -> Measures:
    """Measure a mask.

    Args:
        mask: bool (H, W).
        spacing: millimetres between neighbours along (rows, columns); None where it is not known.

    Raises:
        DataError: the mask is not boolean or not two-dimensional, or the spacing is not two positive numbers.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise DataError(f"a mask to measure is a boolean array (height, width), found {mask.dtype} {mask.shape}")
    if spacing is not None and not (len(spacing) == 2 and all(0 < step < np.inf for step in spacing)):
        raise DataError(f"a spacing is two positive numbers, mm along (rows, columns), found {spacing}")
    step_mm = None if spacing is None else (float(spacing[0]), float(spacing[1]))
    box = extent_of(mask)
    if box is None:
        zero = None if step_mm is None else 0.0
        return Measures(0, zero, 0.0, zero, 0.0, zero, 0.0, zero, None, (0, 0, 0, 0), None)
    x1, y1, x2, y2 = box
    tight = mask[y1:y2, x1:x2]
    area = int(np.count_nonzero(tight))
    corners = _hull_corners(tight) + np.array([x1, y1])
    long_px, short_px, ends = _diameters(corners, (1.0, 1.0))
    long_mm, short_mm = None, None
    if step_mm is not None:
        long_mm, short_mm, ends = _diameters(corners, step_mm)
    ys, xs = np.nonzero(tight)
    return Measures(
        area,
        None if step_mm is None else area * step_mm[0] * step_mm[1],
        long_px,
        long_mm,
        short_px,
        short_mm,
        _perimeter(tight, (1.0, 1.0)),
        None if step_mm is None else _perimeter(tight, step_mm),
        (float(xs.mean()) + x1, float(ys.mean()) + y1),
        (x1, y1, x2, y2),
        ((float(ends[0, 0]), float(ends[0, 1])), (float(ends[1, 0]), float(ends[1, 1]))),
    )


def _hull_corners(mask: NDArray[np.bool_]) -> Vertices:
    """Return the corners (x, y) of the hull, half a pixel outside of the outermost pixels in rows and columns."""
    lines, rungs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left = mask[lines].argmax(axis=1) - 0.5
    right = mask.shape[1] - mask[lines][:, ::-1].argmax(axis=1) - 0.5
    top = mask[:, rungs].argmax(axis=0) - 0.5
    bottom = mask.shape[0] - mask[::-1, rungs].argmax(axis=0) - 0.5
    # No other point of the border can be on the hull.
    points = np.concatenate([np.stack(pair, axis=1) for pair in
                             ((left, lines), (right, lines), (rungs, top), (rungs, bottom))])  # fmt: skip
    return points[ConvexHull(points).vertices]


def _diameters(corners: Vertices, steps: tuple[float, float]) -> tuple[float, float, Vertices]:
    """Return the long and the short diameter and the ends of the long one.

    Args:
        corners: (N, 2) x, y of the convex hull in pixels, in the order of its outline.
        steps: units between pixels along (rows, columns).
    """
    places = corners * np.array([steps[1], steps[0]])
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    # Of equal ones (a square's diagonals) the first, read from the top left, so that the answer never varies.
    best = np.argwhere(distances >= distances.max() * (1 - 1e-12))
    first, second = corners[best[:, 0]], corners[best[:, 1]]
    one, other = best[np.lexsort((second[:, 0], second[:, 1], first[:, 0], first[:, 1]))[0]]
    longest = float(distances[one, other])
    along = (places[other] - places[one]) / longest
    u, v = (places - places[one]) @ along, (places - places[one]) @ np.array([-along[1], along[0]])
    # Rounding must not take an end of the diameter from one of the sides.
    v[[one, other]] = 0
    # The hull is one chain of corners on either side of the long diameter; the longest line across starts at a corner.
    sides = []
    for side in (v >= 0, v <= 0):
        order = np.argsort(u[side])
        sides.append(np.interp(u, u[side][order], v[side][order]))
    return longest, float(np.max(sides[0] - sides[1])), corners[[one, other]]


def _perimeter(mask: NDArray[np.bool_], steps: tuple[float, float]) -> float:
    """Return the length of the border by Crofton's formula, in the unit of the steps along (rows, columns).

    The border is met by lines in four directions; the perimeter is pi times the mean over all directions of their
    number times their distance (Serra, Image Analysis and Mathematical Morphology, 1982, chapter VIII). A direction
    stands for the angles nearest to it.
    """
    padded = np.pad(mask, 1)
    down, right = steps
    diagonal, slope = float(np.hypot(down, right)), float(np.arctan2(down, right))
    area = down * right
    # Of each direction: where lines go in, the distance between lines, and its share of the half circle.
    met = (
        (padded[:, 1:] & ~padded[:, :-1], area / right, slope),
        (padded[1:] & ~padded[:-1], area / down, np.pi / 2 - slope),
        (padded[1:, 1:] & ~padded[:-1, :-1], area / diagonal, np.pi / 4),
        (padded[1:, :-1] & ~padded[:-1, 1:], area / diagonal, np.pi / 4),
    )
    return float(sum(np.count_nonzero(entries) * distance * share for entries, distance, share in met))
