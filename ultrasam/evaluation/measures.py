"""Every score of one object, from overlap to border distances, in pixels and millimetres."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from ultrasam.errors import ConfigError
from ultrasam.evaluation.records import ObjectRecord
from ultrasam.evaluation.surface import Mask, surface_scores
from ultrasam.geometry.rle import decode_mask

# COCO's sizes, by pixels of the true mask.
SIZES = (("small", 0, 32**2), ("medium", 32**2, 96**2), ("large", 96**2, math.inf))


@dataclass(frozen=True)
class Tolerances:
    """Tolerances of the normalised surface Dice.

    Attributes:
        pixels: for distances in pixels.
        millimetres: for distances in millimetres.
    """

    pixels: float = 2.0
    millimetres: float = 1.0

    def __post_init__(self) -> None:
        if not (self.pixels >= 0 and self.millimetres >= 0):
            raise ConfigError(
                f"tolerances of the surface Dice must be 0 or more, got {self.pixels}, {self.millimetres}"
            )


@dataclass(frozen=True)
class Measures:
    """Scores of one object; NaN where undefined (both masks empty, or no pixel size known).

    Attributes:
        dice: overlap.
        iou: overlap.
        boundary_iou: see `ultrasam.evaluation.surface`, as all that follow.
        nsd: normalised surface Dice at the tolerance in pixels.
        hd95: pixels.
        assd: pixels.
        nsd_mm: at the tolerance in millimetres.
        hd95_mm: millimetres.
        assd_mm: millimetres.
    """

    dice: float
    iou: float
    boundary_iou: float
    nsd: float
    hd95: float
    assd: float
    nsd_mm: float
    hd95_mm: float
    assd_mm: float


MEASURES = tuple(field.name for field in fields(Measures))
HIGHER_IS_BETTER = ("dice", "iou", "boundary_iou", "nsd", "nsd_mm")


def measure(record: ObjectRecord, tolerances: Tolerances | None = None) -> Measures:
    """Return every score of one object; a missing prediction counts as an empty mask."""
    tolerances = tolerances or Tolerances()
    height, width = record.truth["size"]
    mask, truth = cut_out(record)
    pixels = surface_scores(mask, truth, tolerance=tolerances.pixels, image_size=(height, width))
    nsd_mm = hd95_mm = assd_mm = math.nan
    if record.spacing is not None:
        mm = surface_scores(mask, truth, record.spacing, tolerances.millimetres, (height, width))
        nsd_mm, hd95_mm, assd_mm = mm.nsd, mm.hd95, mm.assd
    return Measures(
        record.dice, record.iou, pixels.boundary_iou, pixels.nsd, pixels.hd95, pixels.assd, nsd_mm, hd95_mm, assd_mm
    )


def measure_all(records: Sequence[ObjectRecord], tolerances: Tolerances | None = None) -> list[Measures]:
    """Return the scores of every object, in order."""
    return [measure(record, tolerances) for record in records]


def cut_out(record: ObjectRecord) -> tuple[Mask, Mask]:
    """Return prediction and truth, bool (h, w), cut to the box around both; 1 x 1 where both are empty."""
    boxes = [record.truth_box] if record.truth_area else []
    boxes += [record.mask_box] if record.mask_area else []
    if not boxes:
        return np.zeros((1, 1), bool), np.zeros((1, 1), bool)
    corners = np.array(boxes)
    x1, y1 = corners[:, :2].min(axis=0).astype(int)
    x2, y2 = corners[:, 2:].max(axis=0).astype(int)
    window = (slice(y1, y2), slice(x1, x2))
    truth = np.ascontiguousarray(decode_mask(record.truth)[window])
    if record.mask is None:
        return np.zeros_like(truth), truth
    return np.ascontiguousarray(decode_mask(record.mask)[window]), truth


def size_of(record: ObjectRecord) -> str:
    """Return COCO's size of the true mask: small (below 32²), medium (to 96²), large; "empty" without a pixel."""
    area = record.truth_area
    if not area:
        return "empty"
    return next(name for name, low, high in SIZES if low <= area < high)
