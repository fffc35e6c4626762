"""What is kept of every image with a predicted value, and its errors with intervals clustered by patient."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ultrasam.errors import DataError
from ultrasam.evaluation.intervals import LEVEL, RESAMPLES, group_numbers, resample_weights

Floats = npt.NDArray[np.float64]

SCORES = ("mae", "rmse", "r2", "bias", "limit_low", "limit_high", "mae_percent", "coverage_95")
# Limits of agreement: mean difference plus and minus so many standard deviations (Bland and Altman 1986).
AGREEMENT = 1.96


@dataclass(frozen=True)
class ValueRecord:
    """One image with its value.

    Attributes:
        dataset: name of the data set.
        group: patient or video.
        image_id: id of the image in its source.
        image_path: of the image.
        value: true.
        predicted: in the same unit.
        deviation: predicted standard deviation, NaN where the model gives none.
    """

    dataset: str
    group: str
    image_id: int
    image_path: str
    value: float
    predicted: float
    deviation: float

    @property
    def key(self) -> tuple[str, str, int]:
        """Identity, over data sets and processes."""
        return (self.dataset, self.image_path, self.image_id)

    @property
    def cluster(self) -> str:
        """What is resampled as a whole."""
        return f"{self.dataset}/{self.group}"


@dataclass(frozen=True)
class Regressed:
    """The images of one test with their errors.

    Attributes:
        records: distinct images, sorted by identity.
        unit: of the values.
        breakdown: see ``breakdown``.
    """

    records: Sequence[ValueRecord]
    unit: str
    breakdown: Mapping[str, Any]


def record_of(sample: Mapping[str, Any]) -> ValueRecord:
    """Turn a predicted sample, as ``DetDataSample.to_dict()`` gives it, into a record.

    Raises:
        DataError: truth or prediction is missing or not finite.
    """
    where = f"image {sample.get('img_path') or sample.get('img_id')}"
    truth, found = sample.get("gt_instances"), sample.get("pred_instances")
    if truth is None or found is None or "measured" not in truth or "measured" not in found:
        raise DataError(f"the sample of {where} lacks its value or the prediction; test a regressor with its data")
    value, predicted = float(truth["measured"][0]), float(found["measured"][0])
    if not (math.isfinite(value) and math.isfinite(predicted)):
        raise DataError(f"{where}: value {value} and prediction {predicted} must be finite; the weights may be damaged")
    return ValueRecord(
        str(sample.get("dataset") or ""), str(sample.get("group") or ""), int(sample["img_id"]),
        str(sample["img_path"]), value, predicted, float(found["deviations"][0]),
    )  # fmt: skip


def unique(records: Iterable[ValueRecord]) -> list[ValueRecord]:
    """Return each image once, sorted by identity: samplers repeat samples to fill the last batch."""
    return [record for _, record in sorted({record.key: record for record in records}.items())]


def errors(values: Floats, predicted: Floats, deviations: Floats, weights: Floats) -> dict[str, Floats]:
    """Return every score of each of R weightings, (R,); NaN where undefined.

    Args:
        values: (N,) true.
        predicted: (N,).
        deviations: (N,), NaN without.
        weights: (R, N), no row sums to 0.

    Returns:
        ``mae``, ``rmse`` and ``bias`` (mean of predicted minus true) in the unit; ``r2`` against the mean of the same
        samples; ``limit_low`` and ``limit_high``, the limits of agreement; ``mae_percent``, mean absolute error in
        percent of the true value; ``coverage_95``, the share of values within 1.96 predicted deviations.
    """
    difference = predicted - values
    total = weights.sum(1)
    bias = weights @ difference / total
    squared = weights @ difference**2
    mean = weights @ values / total
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = weights @ values**2 - total * mean**2
        # Rounding alone is no spread.
        r2 = np.where(spread > 1e-9 * (weights @ values**2), 1 - squared / spread, np.nan)
        # The standard deviation of the differences has N - 1 degrees of freedom.
        deviation = np.sqrt(np.maximum(squared - total * bias**2, 0) / np.where(total > 1, total - 1, np.nan))
        relative = weights @ (np.abs(difference) / np.where(values != 0, np.abs(values), np.nan)) / total
        inside = np.where(np.isfinite(deviations), np.abs(difference) <= AGREEMENT * deviations, np.nan)
        coverage = weights @ inside / total
    return {
        "mae": weights @ np.abs(difference) / total,
        "rmse": np.sqrt(squared / total),
        "r2": r2,
        "bias": bias,
        "limit_low": bias - AGREEMENT * deviation,
        "limit_high": bias + AGREEMENT * deviation,
        "mae_percent": 100 * relative,
        "coverage_95": coverage,
    }


def breakdown(records: Sequence[ValueRecord], *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """Return every score with its 95 % interval, clustered by patient.

    Args:
        records: distinct, in an order that does not depend on the run; at least one.
        resamples: bootstrap samples.
        seed: of the resampling.

    Returns:
        ``rules``; ``overall`` and, with several data sets, ``datasets``: by score ``mean``, ``low``, ``high``,
        ``objects`` and ``groups``, and ``counts``.
    """
    slugs = sorted({record.dataset for record in records})
    parts = {slug or "unnamed": [record for record in records if record.dataset == slug] for slug in slugs}
    return {
        "rules": {
            "errors": "Predicted minus true. R2 is against the mean of the tested values; limits of agreement are the "
            f"mean difference plus and minus {AGREEMENT} standard deviations of the differences.",
            "intervals": f"{LEVEL:.0%} percentile bootstrap of {resamples} resamples of whole patients or videos, "
            f"seed {seed}.",
        },
        "overall": intervals(records, resamples, seed),
        "datasets": {name: intervals(part, resamples, seed) for name, part in parts.items()} if len(parts) > 1 else {},
    }


def arrays(records: Sequence[ValueRecord]) -> tuple[Floats, Floats, Floats]:
    """Return true values, predictions and deviations, (N,) each."""
    table = np.array([(r.value, r.predicted, r.deviation) for r in records], np.float64)
    return table[:, 0], table[:, 1], table[:, 2]


def intervals(records: Sequence[ValueRecord], resamples: int, seed: int) -> dict[str, Any]:
    """Return the interval of every score, by name, and ``counts``."""
    numbers = group_numbers([record.cluster for record in records])
    total = int(numbers.max()) + 1
    columns = arrays(records)
    point = errors(*columns, np.ones((1, len(records))))
    drawn = None
    if total > 1 and resamples:
        drawn = errors(*columns, resample_weights(total, resamples, seed)[:, numbers])
    found: dict[str, Any] = {}
    for name in SCORES:
        values = drawn[name][np.isfinite(drawn[name])] if drawn else np.zeros(0)
        ends = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(values) else (math.nan, math.nan)
        found[name] = {"mean": float(point[name][0]), "low": float(ends[0]), "high": float(ends[1]),
                       "objects": len(records), "groups": total}  # fmt: skip
    return {**found, "counts": {"objects": len(records), "images": len(records), "groups": total}}
