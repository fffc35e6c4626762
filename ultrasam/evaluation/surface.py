"""Distances between the borders of two masks, and the overlap of their boundary bands.

The border of a mask is its pixels with a 4-neighbour outside the mask, the outside of the image included; a border
point is the centre of such a pixel. Distances are exact, between points, in pixels or in the unit of ``spacing``.

The rule for empty masks: where both are empty nothing is defined (NaN) and the object is counted apart; where one is
empty, distances are the diagonal of the image and the shares are 0, so that a miss never improves a mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from ultrasam.errors import DataError

Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]

# Cheng et al. 2021: the width of the boundary band as a share of the image's diagonal.
BAND = 0.02
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


@dataclass(frozen=True)
class SurfaceScores:
    """How well two borders agree.

    Attributes:
        hd95: the larger of the two directed 95th percentiles of the distance to the other border
            (percentiles with linear interpolation).
        assd: mean of all distances, both directions pooled.
        nsd: share of border points, both borders pooled, within the tolerance of the other one.
        boundary_iou: IoU of the bands inside the two borders (Cheng et al. 2021), band of 2 % of the diagonal.
    """

    hd95: float
    assd: float
    nsd: float
    boundary_iou: float


def surface_scores(
    mask: Mask,
    truth: Mask,
    spacing: tuple[float, float] = (1.0, 1.0),
    tolerance: float = 2.0,
    image_size: tuple[int, int] | None = None,
) -> SurfaceScores:
    """Compare two bool masks of one size.

    Args:
        mask: predicted, (H, W).
        truth: (H, W).
        spacing: size of a pixel along (rows, columns); distances and ``tolerance`` are in its unit.
        tolerance: of the normalised surface Dice.
        image_size: (H, W) of the whole image where the masks are a cut-out of it that holds both entirely.

    Raises:
        DataError: sizes differ, or spacing or tolerance are not positive.
    """
    _check(mask, truth, spacing, tolerance)
    height, width = image_size or mask.shape
    found, wanted = bool(mask.any()), bool(truth.any())
    if not found and not wanted:
        return SurfaceScores(math.nan, math.nan, math.nan, math.nan)
    if not found or not wanted:
        diagonal = math.hypot(height * spacing[0], width * spacing[1])
        return SurfaceScores(diagonal, diagonal, 0.0, 0.0)
    to_truth, to_mask = border_distances(mask, truth, spacing)
    both = np.concatenate([to_truth, to_mask])
    return SurfaceScores(
        hd95=float(max(np.percentile(to_truth, 95), np.percentile(to_mask, 95))),
        assd=float(both.mean()),
        # Ten pixels of 0.1 mm are 1 mm, whatever the rounding says.
        nsd=float((both <= tolerance * (1 + 1e-9)).mean()),
        boundary_iou=boundary_iou(mask, truth, band_width(height, width)),
    )


def border(mask: Mask) -> Mask:
    """Return the border pixels of a bool (H, W) mask; beyond the array is outside."""
    inner = cv2.erode(mask.view(np.uint8), _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & (inner == 0)


def border_points(mask: Mask, spacing: tuple[float, float] = (1.0, 1.0)) -> Points:
    """Return the border points (N, 2) of a mask as (row, column) times ``spacing``."""
    return np.argwhere(border(mask)).astype(np.float64) * np.array(spacing, np.float64)


def border_distances(
    mask: Mask, truth: Mask, spacing: tuple[float, float] = (1.0, 1.0)
) -> tuple[Points, Points]:
    """Return the distances of the mask's border points to the truth's border, and the other way round.

    Both masks must have a pixel. Points that both borders share have distance 0 and are not searched for.
    """
    first, second = border(mask), border(truth)
    scale = np.array(spacing, np.float64)
    distances = []
    for here, there in ((first, second), (second, first)):
        lonely = np.argwhere(here & ~there) * scale
        shared = int((here & there).sum())
        searched = cKDTree(np.argwhere(there) * scale).query(lonely)[0] if len(lonely) else np.zeros(0)
        distances.append(np.concatenate([np.zeros(shared), searched]))
    return distances[0], distances[1]


def band_width(height: int, width: int) -> int:
    """Return the width in pixels of the boundary band for an image of that size, at least 1."""
    return max(round(BAND * math.hypot(height, width)), 1)


def boundary_iou(mask: Mask, truth: Mask, width: int) -> float:
    """Return the IoU of the bands of ``width`` pixels (chessboard distance) inside the borders.

    Args:
        mask: bool (H, W).
        truth: bool (H, W).
        width: of the band; beyond the arrays is outside, as it is where they are a cut-out that holds both.

    Returns:
        0 to 1; NaN where both are empty.
    """
    first, second = _band(mask, width), _band(truth, width)
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else math.nan


def _band(mask: Mask, width: int) -> Mask:
    """Return the pixels of a mask within ``width`` (chessboard distance) of its outside."""
    side = 2 * width + 1
    kernel = np.ones((side, side), np.uint8)
    inner = cv2.erode(mask.view(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & (inner == 0)


def _check(mask: Mask, truth: Mask, spacing: tuple[float, float], tolerance: float) -> None:
    """Refuse what cannot be compared."""
    if mask.shape != truth.shape:
        raise DataError(
            f"A mask of {mask.shape} pixels cannot be compared with a truth of {truth.shape}: bring both to "
            "the original size of the image."
        )
    if not (min(spacing) > 0 and tolerance >= 0 and math.isfinite(sum(spacing) + tolerance)):
        raise DataError(
            f"Pixel sizes must be positive and the tolerance 0 or more, found spacing {spacing} and "
            f"tolerance {tolerance}: correct the image record's spacing_mm or the command line."
        )
