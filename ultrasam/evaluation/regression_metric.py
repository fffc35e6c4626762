"""The metric of regression that MMEngine's test loop calls, and the files that it leaves."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mmdet.registry import METRICS

from ultrasam.errors import ConfigError, DataError
from ultrasam.evaluation.classification_files import plain
from ultrasam.evaluation.classification_metric import WritingMetric, with_ends
from ultrasam.evaluation.intervals import RESAMPLES
from ultrasam.evaluation.regression import SCORES, Regressed, ValueRecord, arrays, breakdown, record_of, unique
from ultrasam.io.files import write_atomic
from ultrasam.visualization import page as html
from ultrasam.visualization.agreement import bland_altman

COLUMNS = ("dataset", "group", "image_id", "image", "truth", "predicted", "difference", "deviation")
TITLES = {
    "mae": "MAE", "rmse": "RMSE", "r2": "R²", "bias": "mean difference", "limit_low": "lower limit of agreement",
    "limit_high": "upper limit of agreement", "mae_percent": "MAE, % of the value", "coverage_95": "95 % coverage",
}  # fmt: skip


@METRICS.register_module()
class RegressionMetric(WritingMetric):
    """Mean absolute and root mean squared error, R2 and limits of agreement, with intervals clustered by patient.

    Logged are ``regression/mae`` and so on, in the unit of the data, with ``_low`` and ``_high``, the ends of the
    95 % interval.

    Args:
        resamples: Bootstrap samples of whole patients; 0 leaves the intervals out.
        seed: Of the resampling.
        collect_device: Kept for MMEngine's signature.
        prefix: What to put before every logged name.

    Raises:
        ConfigError: A negative number of resamples.
    """

    default_prefix = "regression"

    def __init__(
        self, resamples: int = RESAMPLES, seed: int = 0, collect_device: str = "cpu", prefix: str | None = None
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if resamples < 0:
            raise ConfigError(f"resamples of RegressionMetric must not be negative, got {resamples}")
        self.resamples = resamples
        self.seed = seed
        self.found: Regressed | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep what is needed of predicted samples.

        Raises:
            DataError: The samples have different units.
        """
        for sample in data_samples:
            unit = str(sample.get("value_unit") or "")
            if self.results and self.results[0][0] != unit:
                raise DataError(
                    f"{sample['img_path']} is measured in {unit!r}, samples before it in {self.results[0][0]!r}; test "
                    "data of different units one by one"
                )
            self.results.append((unit, record_of(sample)))

    def compute_metrics(self, results: list[tuple[str, ValueRecord]]) -> dict[str, float]:
        """Compute the errors of these records, repeated ones included.

        Raises:
            DataError: There are no images.
        """
        records = unique(record for _, record in results)
        if not records:
            raise DataError("there are no images with values; check the annotation file")
        found = breakdown(records, resamples=self.resamples, seed=self.seed)
        self.found = Regressed(records, results[0][0], found)
        metrics: dict[str, float] = {}
        for start, part in {"": found["overall"], **{f"{s}/": p for s, p in found["datasets"].items()}}.items():
            for name in shown_scores(part):
                metrics |= with_ends(f"{start}{name}", part[name], self.resamples)
            metrics[f"{start}objects"] = part["counts"]["objects"]
        return metrics

    def write_results(self, folder: str | Path, about: Mapping[str, Any], title: str) -> list[Path]:
        """Write `per_object.csv`, `breakdown.json`, `bland_altman.svg` and `report.html`; returns their paths."""
        if self.found is None:
            return []
        truth, predicted, _ = arrays(self.found.records)
        content = {
            "per_object.csv": per_object_text(self.found),
            "breakdown.json": json.dumps(plain(self.found.breakdown), indent=2) + "\n",
            "bland_altman.svg": bland_altman(
                truth, predicted, agreement_lines(self.found), self.found.unit, standalone=True
            ),
            "report.html": regression_page(self.found, about, title),
        }
        for name, text in content.items():
            write_atomic(Path(folder) / name, text.encode())
        return [Path(folder) / name for name in content]


def shown_scores(part: Mapping[str, Any]) -> list[str]:
    """Return the scores that are defined: there is no coverage without predicted deviations."""
    return [name for name in SCORES if name != "coverage_95" or math.isfinite(part[name]["mean"])]


def per_object_text(found: Regressed) -> str:
    """Return the table: truth and prediction of each image, in full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for r in found.records:
        deviation = "" if math.isnan(r.deviation) else repr(r.deviation)
        writer.writerow([r.dataset, r.group, r.image_id, r.image_path, repr(r.value), repr(r.predicted),
                         repr(r.predicted - r.value), deviation])  # fmt: skip
    return text.getvalue()


def agreement_lines(found: Regressed) -> list[tuple[str, float, float, float]]:
    """Return mean difference and limits of agreement with their intervals, for the plot."""
    overall = found.breakdown["overall"]
    return [
        (name, overall[key]["mean"], overall[key]["low"], overall[key]["high"])
        for name, key in (("mean", "bias"), ("limit", "limit_low"), ("limit", "limit_high"))
    ]


def regression_page(found: Regressed, about: Mapping[str, Any], title: str) -> str:
    """Return one self-contained page: errors with intervals, Bland-Altman plot, predicted against true.

    Args:
        found: the images and their errors.
        about: what is known of the test.
        title: of the page.
    """
    parts, unit = found.breakdown, found.unit
    truth, predicted, _ = arrays(found.records)
    names = shown_scores(parts["overall"])
    rows = [("all images", parts["overall"]), *parts["datasets"].items()]
    low, high = float(min(truth.min(), predicted.min())), float(max(truth.max(), predicted.max()))
    span = (low, high if high > low else low + 1)
    counted = parts["overall"]["counts"]
    tiles = [(_number(name, parts["overall"][name]["mean"]), _title(name, unit)) for name in ("mae", "rmse", "r2")]
    scatter = html.scatter(truth, predicted, f"Predicted against true{f', {unit}' if unit else ''}", span, span,
                           diagonal=True)  # fmt: skip
    body = "".join((
        html.tiles([*tiles, (f"{counted['objects']:,}", "images"), (f"{counted['groups']:,}", "patients or videos")]),
        "<h2>Errors</h2>",
        '<p class="muted">With 95 % intervals (bootstrap over patients or videos).</p>',
        html.table(["part", "images", "patients", *(_title(name, unit) for name in names)],
                   [[label, str(part["counts"]["objects"]), str(part["counts"]["groups"]),
                     *(_cell(name, part[name]) for name in names)] for label, part in rows]),
        "<h2>Agreement</h2>",
        f'<div class="charts">{bland_altman(truth, predicted, agreement_lines(found), unit)}{scatter}</div>',
        "<h2>Rules and origin</h2>",
        html.origin_list({**parts["rules"], **about}),
    ))  # fmt: skip
    return html.page(title, escape(f"values in {unit}" if unit else "values without a unit"), body)


def _title(name: str, unit: str) -> str:
    return f"{TITLES[name]}, {unit}" if unit and name not in ("r2", "mae_percent", "coverage_95") else TITLES[name]


def _number(name: str, value: float) -> str:
    if not math.isfinite(value):
        return "undefined"
    return f"{value:.3f}" if name in ("r2", "coverage_95") else f"{value:.3g}"


def _cell(name: str, interval: Mapping[str, Any]) -> str:
    shown = _number(name, interval["mean"])
    if not math.isfinite(interval["low"]):
        return shown
    return f"{shown}\n{_number(name, interval['low'])} to {_number(name, interval['high'])}"
