"""Compare two classifiers on the same images: whether a prompt helps, by how much, and how sure that is."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ultrasam.errors import DataError, UltraSamError
from ultrasam.evaluation.classification import ClassRecord, arrays
from ultrasam.evaluation.classification_files import plain, read_classification
from ultrasam.evaluation.classification_scores import SCORES, Floats, score
from ultrasam.evaluation.intervals import LEVEL, RESAMPLES, group_numbers, resample_weights

PERMUTATIONS = 2000


def compare_classifiers(
    first: str | Path,
    second: str | Path,
    *,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the differences of two tests' scores, second minus first, paired by object and clustered by patient.

    Intervals are percentile bootstraps over whole patients. The p-value is that of the permutation test that exchanges
    the two models for whole patients, which is what "there is no difference" allows; two-sided, and the observed
    exchange counts among them.

    Args:
        first: folder of a test.
        second: folder of another; where one has images and the other their objects, images with one object are paired.
        resamples: bootstrap samples.
        permutations: random exchanges.
        seed: of both.

    Returns:
        ``objects``, ``groups``, and by score ``first``, ``second``, ``difference``, ``low``, ``high``, ``p_value``.

    Raises:
        DataError: the folders are of other data or classes.
    """
    one, two = paired(first, second)
    truth, table = arrays(one)
    _, other = arrays(two)
    numbers = group_numbers([record.cluster for record in one])
    groups = int(numbers.max()) + 1
    ones = np.ones((1, len(truth)))
    points = [score(truth, found, ones).overall for found in (table, other)]
    weights = resample_weights(groups, resamples, seed)[:, numbers] if groups > 1 else np.zeros((0, len(truth)))
    drawn = [score(truth, found, weights).overall for found in (table, other)] if groups > 1 else None
    exchanged = exchanged_differences(truth, table, other, numbers, permutations, seed)
    result: dict[str, Any] = {"objects": len(truth), "groups": groups}
    for name in SCORES:
        difference = float(points[1][name][0] - points[0][name][0])
        low = high = math.nan
        if drawn is not None:
            values = drawn[1][name] - drawn[0][name]
            values = values[np.isfinite(values)]
            if len(values):
                low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
        result[name] = {
            "first": float(points[0][name][0]), "second": float(points[1][name][0]), "difference": difference,
            "low": low, "high": high, "p_value": two_sided(difference, exchanged[name]),
        }  # fmt: skip
    return result


def exchanged_differences(
    truth: npt.NDArray[np.int64], first: Floats, second: Floats, numbers: npt.NDArray[np.int64], count: int, seed: int
) -> dict[str, Floats]:
    """Return, by score, the differences (count,) after exchanging the models for random groups."""
    rng = np.random.default_rng([seed, 1])
    ones = np.ones((1, len(truth)))
    found: dict[str, list[float]] = {name: [] for name in SCORES}
    for _ in range(count):
        swap = rng.integers(0, 2, int(numbers.max()) + 1).astype(bool)[numbers][:, None]
        one = score(truth, np.where(swap, second, first), ones).overall
        two = score(truth, np.where(swap, first, second), ones).overall
        for name in SCORES:
            found[name].append(float(two[name][0] - one[name][0]))
    return {name: np.array(values) for name, values in found.items()}


def two_sided(observed: float, drawn: Floats) -> float:
    """Return the share of exchanges with a difference at least as large, the observed one among them."""
    if not math.isfinite(observed):
        return math.nan
    return float((np.abs(drawn) >= abs(observed) - 1e-12).sum() + 1) / (len(drawn) + 1)


def paired(first: str | Path, second: str | Path) -> tuple[list[ClassRecord], list[ClassRecord]]:
    """Return the objects of both tests in one order.

    Raises:
        DataError: classes, images or truth differ, or an image with several objects stands against one whole image.
    """
    (names, one), (others, two) = read_classification(first), read_classification(second)
    if names != others:
        raise DataError(f"{first} has the classes {list(names)}, {second} has {list(others)}; compare the same data")
    if {r.prompt == "" for r in one} != {r.prompt == "" for r in two}:
        # An image as a whole is object 0; with one object an image it can stand for it.
        one, two = ([replace(record, annotation_id=0) for record in part] for part in (one, two))
    tables = []
    for folder, part in ((first, one), (second, two)):
        keys = [(r.dataset, r.image_id, Path(r.image_path).name, r.annotation_id) for r in part]
        if len(set(keys)) != len(keys):
            raise DataError(
                f"{folder} has images with several objects, the other test whole images; compare tests of one kind"
            )
        tables.append(dict(zip(keys, part, strict=True)))
    if tables[0].keys() != tables[1].keys():
        only = len(tables[0].keys() ^ tables[1].keys())
        raise DataError(f"{first} and {second} differ in {only} objects; compare tests of the same data")
    keys = sorted(tables[0])
    different = [key for key in keys if tables[0][key].label != tables[1][key].label]
    if different:
        raise DataError(f"{first} and {second} disagree on the true class of {different[0][2]}; test again on one file")
    return [tables[0][key] for key in keys], [tables[1][key] for key in keys]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the comparison of two folders of ``tools/test.py --out``; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m ultrasam.evaluation.classification_compare",
        description="Compare two tests of classifiers on the same images: second minus first, paired by patient.",
    )
    parser.add_argument("first", help="folder that tools/test.py --out wrote")
    parser.add_argument("second", help="folder of the other test")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args(argv)
    try:
        found = compare_classifiers(arguments.first, arguments.second)
    except UltraSamError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps(plain(found), indent=2))
        return 0
    print(f"{found['objects']} objects of {found['groups']} patients")
    print(f"{'':<10} {'first':>8} {'second':>8} {'difference':>11}  {'95 % interval':<18} {'p':>7}")
    for name in SCORES:
        part = found[name]
        ends = f"{part['low']:+.3f} to {part['high']:+.3f}"
        print(
            f"{name:<10} {part['first']:8.3f} {part['second']:8.3f} {part['difference']:+11.3f}  {ends:<18} "
            f"{part['p_value']:7.4f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
