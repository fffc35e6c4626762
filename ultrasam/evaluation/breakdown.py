"""Scores with intervals: of all objects, per image, per data set, per application and per object size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from ultrasam.evaluation.coco import IOU_TYPES
from ultrasam.evaluation.intervals import LEVEL, RESAMPLES, mean_interval
from ultrasam.evaluation.measures import MEASURES, SIZES, Measures, Tolerances, size_of
from ultrasam.evaluation.precision_interval import precision_intervals
from ultrasam.evaluation.records import ObjectRecord

Part = list[int]

EMPTY_RULE = (
    "Both masks empty: undefined, counted in both_empty, in no mean. One empty: overlap, surface Dice and boundary "
    "IoU 0, distances the diagonal of the image; counted in missed or in truth_empty."
)


def breakdown(
    records: Sequence[ObjectRecord],
    measures: Sequence[Measures],
    *,
    tolerances: Tolerances | None = None,
    resamples: int = RESAMPLES,
    precision_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return every mean with its 95 % interval, clustered by group.

    Args:
        records: distinct objects in an order that does not depend on the run.
        measures: their scores, in the same order.
        tolerances: those that the scores were computed with; written into the result.
        resamples: bootstrap samples of means.
        precision_resamples: bootstrap samples of average precisions; 0 leaves those out.
        seed: of all resampling.

    Returns:
        ``rules`` (what was computed, in words and numbers), ``overall``, ``per_image``, ``datasets``,
        ``applications`` and ``sizes``; each part holds, by score, ``mean``, ``low``, ``high``, ``objects`` and
        ``groups``, and ``counts``. ``per_image`` averages the objects of an image first.
    """
    tolerances = tolerances or Tolerances()
    table = np.array([[getattr(found, name) for name in MEASURES] for found in measures], np.float64)
    groups = np.array([f"{record.dataset}/{record.group}" for record in records], dtype=object)

    def part(members: Part, precision: bool = False) -> dict[str, Any]:
        found = _means(table[members], groups[members].tolist(), resamples, seed)
        chosen = [records[number] for number in members]
        if precision and precision_resamples:
            found |= _precisions(chosen, precision_resamples, seed)
        return {**found, "counts": _counts(chosen)}

    everything = list(range(len(records)))
    images, image_groups = _image_means(records, table, groups)
    return {
        "rules": {
            "empty_masks": EMPTY_RULE,
            "nsd_tolerance_pixels": tolerances.pixels,
            "nsd_tolerance_mm": tolerances.millimetres,
            "interval": f"{LEVEL:.0%} percentile bootstrap over groups, {resamples} resamples, seed {seed}",
            "sizes": {name: [low, None if math.isinf(high) else high] for name, low, high in SIZES},
        },
        "overall": part(everything, precision=True),
        "per_image": _means(images, image_groups, resamples, seed),
        "datasets": _parts(everything, lambda n: records[n].dataset or "unnamed", lambda m: part(m, precision=True)),
        "applications": _parts(everything, lambda n: records[n].application or "unknown", part),
        "sizes": _parts(everything, lambda n: size_of(records[n]), part),
    }


def _parts(
    numbers: Part, key: Callable[[int], str], function: Callable[[Part], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the function of the objects of each key, by sorted key."""
    members: dict[str, Part] = {}
    for number in numbers:
        members.setdefault(key(number), []).append(number)
    return {name: function(members[name]) for name in sorted(members)}


def _means(
    table: npt.NDArray[np.float64], groups: list[str], resamples: int, seed: int
) -> dict[str, dict[str, float | int]]:
    """Return the interval of every score that is defined for some object."""
    found = {}
    for column, name in enumerate(MEASURES):
        values = table[:, column]
        if np.isfinite(values).any():
            found[name] = asdict(mean_interval(values, groups, resamples=resamples, seed=seed))
    return found


def _precisions(records: Sequence[ObjectRecord], resamples: int, seed: int) -> dict[str, dict[str, float | int]]:
    """Return the intervals of the average precisions of masks and boxes."""
    scored = [record for record in records if not math.isnan(record.iou)]
    if not scored:
        return {}
    return {
        f"{iou_type}_{name}": asdict(interval)
        for iou_type in IOU_TYPES
        for name, interval in precision_intervals(scored, iou_type, resamples=resamples, seed=seed).items()
    }


def _counts(records: Sequence[ObjectRecord]) -> dict[str, int]:
    """Return the numbers of objects, images and groups, and of empty masks of every kind."""
    truth = np.array([record.truth_area > 0 for record in records], bool)
    found = np.array([record.mask_area > 0 for record in records], bool)
    return {
        "objects": len(records),
        "images": len({record.image_key for record in records}),
        "groups": len({(record.dataset, record.group) for record in records}),
        "missed": int((truth & ~found).sum()),
        "truth_empty": int((~truth & found).sum()),
        "both_empty": int((~truth & ~found).sum()),
    }


def _image_means(
    records: Sequence[ObjectRecord], table: npt.NDArray[np.float64], groups: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Return the mean over the defined objects of each image, (images, scores), and the images' groups."""
    members: dict[tuple[Any, ...], Part] = {}
    for number, record in enumerate(records):
        members.setdefault(record.image_key, []).append(number)
    rows = np.full((len(members), table.shape[1]), np.nan)
    for row, numbers in enumerate(members.values()):
        values = table[numbers]
        defined = np.isfinite(values)
        total = np.where(defined, values, 0).sum(axis=0)
        count = defined.sum(axis=0)
        rows[row] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return rows, [str(groups[numbers[0]]) for numbers in members.values()]
