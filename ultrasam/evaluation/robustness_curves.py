"""From the Dice of single objects to curves with intervals, and their files."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from ultrasam.evaluation.intervals import Comparison, Interval, compare_means, mean_interval
from ultrasam.evaluation.robustness import ObjectCurves, Plan

Values = npt.NDArray[np.float64]

# Shares of the image's pixels; an object of exactly an edge belongs to the bin above.
SIZE_EDGES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 1.0)
TITLES = {
    "jitter": "Box drawn inexactly",
    "position": "Place of one click",
    "clicks": "Number of clicks",
    "size": "Size of the object",
}


@dataclass(frozen=True)
class Point:
    """One condition of a curve.

    Attributes:
        condition: as text: a share, a position, a number of clicks, or a range of sizes.
        x: as a number, for curves along an axis; the position in the list otherwise.
        dice: mean with its interval.
        difference: to the first condition of the curve, paired by object; None for that one and between sizes.
    """

    condition: str
    x: float
    dice: Interval
    difference: Comparison | None = None


@dataclass(frozen=True)
class Curve:
    """Dice along one kind of condition.

    Attributes:
        kind: "jitter", "position", "clicks" or "size".
        prompt: "point" or "box".
        points: in the order of the axis.
    """

    kind: str
    prompt: str
    points: list[Point]


def curves_of(objects: Sequence[ObjectCurves], plan: Plan) -> list[Curve]:
    """Return every curve of the plan; intervals are bootstrapped over patients or videos."""
    groups = [f"{item.dataset}/{item.group}" for item in objects]
    shares = np.array([item.share for item in objects])
    jitter = np.array([item.jitter for item in objects]).reshape(len(objects), -1)
    curves = [Curve("jitter", "box", _paired(jitter, groups, [f"{s:g}" for s in plan.jitter], plan.jitter, plan.seed))]
    by_prompt = [("box", jitter[:, 0])]
    if plan.clicks:
        positions = np.array([item.positions for item in objects]).reshape(len(objects), -1)
        clicks = np.array([item.clicks for item in objects]).reshape(len(objects), -1)
        places = [float(number) for number in range(len(plan.positions))]
        curves.append(Curve("position", "point", _paired(positions, groups, plan.positions, places, plan.seed)))
        numbers = range(1, plan.clicks + 1)
        labels = [str(number) for number in numbers]
        curves.append(Curve("clicks", "point", _paired(clicks, groups, labels, [float(n) for n in numbers], plan.seed)))
        by_prompt.append(("point", clicks[:, 0]))
    curves.extend(Curve("size", name, _sizes(values, shares, groups, plan.seed)) for name, values in by_prompt)
    return curves


def _paired(
    table: Values, groups: list[str], conditions: Sequence[str], places: Sequence[float], seed: int
) -> list[Point]:
    """Return a curve's points from Dice (N, conditions)."""
    points = []
    for column, (condition, x) in enumerate(zip(conditions, places, strict=True)):
        change = compare_means(table[:, 0], table[:, column], groups, seed=seed) if column else None
        points.append(Point(condition, x, mean_interval(table[:, column], groups, seed=seed), change))
    return points


def _sizes(values: Values, shares: Values, groups: list[str], seed: int) -> list[Point]:
    """Return the points of the bins that hold an object."""
    bins = np.digitize(shares, SIZE_EDGES[1:-1])
    points = []
    for number in np.unique(bins):
        members = np.flatnonzero(bins == number)
        found = mean_interval(values[members], [groups[n] for n in members], seed=seed)
        label = f"{100 * SIZE_EDGES[number]:g} to {100 * SIZE_EDGES[number + 1]:g} %"
        points.append(Point(label, float(number), found))
    return points


def curves_csv(curves: Sequence[Curve]) -> bytes:
    """Return a table with one line a condition; numbers as they read back, undefined ones empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["curve", "prompt", "condition", "dice", "low", "high", "objects", "groups",
                     "difference", "difference_low", "difference_high", "p_value"])  # fmt: skip
    for curve in curves:
        for point in curve.points:
            found, change = point.dice, point.difference
            changed = (math.nan,) * 4
            if change is not None:
                changed = (change.difference, change.low, change.high, change.p_value)
            writer.writerow(
                [curve.kind, curve.prompt, point.condition, *map(_cell, (found.mean, found.low, found.high)),
                 found.objects, found.groups, *map(_cell, changed)]
            )  # fmt: skip
    return text.getvalue().encode()


def objects_csv(objects: Sequence[ObjectCurves], plan: Plan) -> bytes:
    """Return a table with one line an object: Dice under every condition."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    numbers = range(1, plan.clicks + 1)
    writer.writerow(
        ["dataset", "group", "image_id", "annotation_id", "area", "share", *(f"jitter_{s:g}" for s in plan.jitter),
         *(f"position_{name}" for name in plan.positions), *(f"clicks_{number}" for number in numbers)]
    )  # fmt: skip
    for item in objects:
        scores = map(_cell, (*item.jitter, *item.positions, *item.clicks))
        known = [item.dataset, item.group, item.image_id, item.annotation_id, item.area, repr(item.share)]
        writer.writerow([*known, *scores])
    return text.getvalue().encode()


def curves_record(curves: Sequence[Curve]) -> list[dict[str, object]]:
    """Return the curves as plain values for JSON."""
    return [
        {"kind": curve.kind, "prompt": curve.prompt, "points": [asdict(point) for point in curve.points]}
        for curve in curves
    ]


def _cell(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))
