"""Two models on the same objects: differences with intervals and p-values, patients kept together."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ultrasam.errors import DataError
from ultrasam.evaluation.coco import IOU_TYPES
from ultrasam.evaluation.intervals import LEVEL, RESAMPLES, Comparison, compare_means, group_numbers, resample_weights
from ultrasam.evaluation.measures import MEASURES
from ultrasam.evaluation.precision_interval import Matches, average_precisions, ranked_matches
from ultrasam.evaluation.results import Row, read_per_object
from ultrasam.io.files import write_atomic

# Each permutation is an evaluation of average precision; for the means they cost next to nothing.
PRECISION_PERMUTATIONS = 1000


def compare_folders(first: Path, second: Path, *, seed: int = 0) -> dict[str, Comparison]:
    """Compare two result folders of `tools/test.py`, second minus first.

    Returns:
        by score: mask and box mAP and mAP50, then every measure that is defined.

    Raises:
        DataError: a folder holds no results, or the two were not tested on the same objects.
    """
    rows = paired(read_per_object(first), read_per_object(second), first, second)
    return compare_rows(*rows, seed=seed)


def paired(one: Sequence[Row], two: Sequence[Row], first: Path, second: Path) -> tuple[list[Row], list[Row]]:
    """Return the rows of both in the same order.

    Raises:
        DataError: an object is in one of them only, or its patient differs.
    """
    others = {row.key: row for row in two}
    missing = [row.key for row in one if row.key not in others]
    surplus = len(others) - (len(one) - len(missing))
    if missing or surplus or not one:
        example = f" (such as {missing[0]})" if missing else ""
        raise DataError(
            f"{first} and {second} must be results on the same objects; of {len(one)} objects {len(missing)} are "
            f"missing in the second{example}, which has {surplus} others: test both on the same annotation file"
        )
    matched = [others[row.key] for row in one]
    torn = [a.key for a, b in zip(one, matched, strict=True) if a.group != b.group]
    if torn:
        raise DataError(f"{first} and {second} disagree on the patient of {len(torn)} objects (such as {torn[0]})")
    return list(one), matched


def compare_rows(one: Sequence[Row], two: Sequence[Row], *, seed: int = 0) -> dict[str, Comparison]:
    """Compare rows that are paired by position, second minus first."""
    groups = [row.group for row in one]
    found: dict[str, Comparison] = {}
    for iou_type in IOU_TYPES:
        names = (f"{iou_type}_mAP", f"{iou_type}_mAP_50")
        found.update(zip(names, _compare_precision(one, two, iou_type, seed), strict=True))
    for name in MEASURES:
        values = [np.array([row.values[name] for row in rows]) for rows in (one, two)]
        comparison = compare_means(values[0], values[1], groups, seed=seed)
        if comparison.objects:
            found[name] = comparison
    return found


def _compare_precision(one: Sequence[Row], two: Sequence[Row], iou_type: str, seed: int) -> list[Comparison]:
    """Return the comparisons of mAP and mAP50: a paired bootstrap, and a permutation that swaps whole groups."""
    # An object that has neither a true nor a predicted pixel takes part in no average precision.
    counted = [n for n, (a, b) in enumerate(zip(one, two, strict=True)) if not _undefined(a) or not _undefined(b)]
    groups = [one[n].group for n in counted]
    numbers = group_numbers(groups)
    count = int(numbers.max(initial=-1)) + 1
    both = _joined([one[n] for n in counted], [two[n] for n in counted], groups, iou_type)

    def difference(chosen: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return (B, 2) differences of mAP and mAP50 of models put together from both by group weights (B, 2 G)."""
        values = average_precisions(both, other) - average_precisions(both, chosen)
        return np.stack([values.mean(axis=1), values[:, 0]], axis=1)

    nothing = np.zeros((1, count))
    observed = difference(np.hstack([nothing + 1, nothing]), np.hstack([nothing, nothing + 1]))[0]
    weights = resample_weights(count, RESAMPLES // 2, seed)
    empty = np.zeros_like(weights)
    spread = difference(np.hstack([weights, empty]), np.hstack([empty, weights]))
    low, high = np.quantile(spread, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    swap = np.random.default_rng([seed, 2]).integers(0, 2, (PRECISION_PERMUTATIONS, count)).astype(np.float64)
    drawn = np.abs(difference(np.hstack([1 - swap, swap]), np.hstack([swap, 1 - swap])))
    p_values = ((drawn >= np.abs(observed) - 1e-12).sum(axis=0) + 1) / (PRECISION_PERMUTATIONS + 1)
    known = count > 1
    return [
        Comparison(
            float(observed[k]), float(low[k]) if known else np.nan, float(high[k]) if known else np.nan,
            float(p_values[k]), len(counted), count,
        )
        for k in range(2)
    ]  # fmt: skip


def _undefined(row: Row) -> bool:
    return bool(np.isnan(row.values["iou"]))


def _joined(one: list[Row], two: list[Row], groups: list[str], iou_type: str) -> Matches:
    """Return the predictions of both models in one ranking, the groups of the second numbered after the first's."""
    hits = [row.hits[iou_type] for row in (*one, *two)]
    scores = [row.score for row in (*one, *two)]
    return ranked_matches(hits, scores, [f"1{name}" for name in groups] + [f"2{name}" for name in groups])


def write_comparison(path: Path, found: dict[str, Comparison]) -> None:
    """Write the comparisons as CSV, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["score", "difference", "low", "high", "p_value", "objects", "groups"])
    for name, item in found.items():
        numbers = (item.difference, item.low, item.high, item.p_value)
        writer.writerow([name, *(repr(float(value)) for value in numbers), item.objects, item.groups])
    write_atomic(path, text.getvalue().encode())
