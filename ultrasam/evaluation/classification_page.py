"""One self-contained page of a classifier's test: scores with intervals, confusion, calibration, ROC curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from ultrasam.evaluation.classification import Classified, arrays
from ultrasam.evaluation.classification_scores import CLASS_SCORES, SCORES, roc_curve
from ultrasam.visualization import page as html
from ultrasam.visualization.lines import LineChart, Series, line_chart

TITLES = {
    "accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "F1", "auc": "AUC", "ece": "ECE",
    "brier": "Brier score",
}  # fmt: skip
# Of the series that a chart can tell apart.
_CURVES = 4
_POINTS = 150
_TICKS = tuple((share, f"{share:g}") for share in (0, 0.25, 0.5, 0.75, 1))


def classification_page(found: Classified, about: Mapping[str, Any], title: str) -> str:
    """Return the page.

    Args:
        found: the objects and their scores.
        about: what is known of the test.
        title: of the page.
    """
    parts = found.breakdown
    absent = ""
    if parts["absent"]:
        names = escape(", ".join(parts["absent"]))
        absent = f'<p class="muted">No true samples of {names}: left out of the macro means.</p>'
    body = "".join((
        html.tiles(_tiles(parts["overall"])),
        "<h2>Scores</h2>",
        '<p class="muted">With 95 % intervals (bootstrap over patients or videos). Precision, recall, F1 and AUC are '
        "macro means, in percent.</p>",
        absent,
        _scores(parts),
        "<h2>Classes</h2>",
        _classes(parts["classes"]),
        "<h2>Confusion</h2>",
        '<p class="muted">Rows: true class; columns: predicted class; below each number its share of the row.</p>',
        _confusion(parts["confusion"], found.classes),
        "<h2>Calibration and ROC</h2>",
        f'<div class="charts">{_reliability(parts["reliability"])}{"".join(_rocs(found))}</div>',
        "<h2>Rules and origin</h2>",
        html.origin_list({**parts["rules"], **about}),
    ))  # fmt: skip
    prompts = sorted({record.prompt for record in found.records if record.prompt})
    intro = escape(f"prompt: {', '.join(prompts)}" if prompts else "whole images, no prompt")
    return html.page(title, intro, body)


def _tiles(overall: Mapping[str, Any]) -> list[tuple[str, str]]:
    counted = overall["counts"]
    return [
        *((_number(name, overall[name]["mean"]), TITLES[name]) for name in ("f1", "auc", "accuracy", "ece")),
        (f"{counted['objects']:,}", "objects"), (f"{counted['groups']:,}", "patients or videos"),
    ]  # fmt: skip


def _number(name: str, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "undefined"
    return f"{value:.3f}" if name in ("ece", "brier") else f"{100 * value:.1f}"


def _cell(name: str, interval: Mapping[str, Any]) -> str:
    """Return a score and, below it, its interval."""
    shown = _number(name, interval["mean"])
    if not math.isfinite(interval["low"]):
        return shown
    return f"{shown}\n{_number(name, interval['low'])} to {_number(name, interval['high'])}"


def _scores(parts: Mapping[str, Any]) -> str:
    rows = [("all objects", parts["overall"]), *parts["datasets"].items()]
    return html.table(
        ["part", "objects", "patients", *(TITLES[name] for name in SCORES)],
        [[label, str(part["counts"]["objects"]), str(part["counts"]["groups"]),
          *(_cell(name, part[name]) for name in SCORES)] for label, part in rows],
    )  # fmt: skip


def _classes(classes: Mapping[str, Any]) -> str:
    return html.table(
        ["class", "true", "predicted", *(TITLES[name] for name in CLASS_SCORES)],
        [[label, str(part["support"]), str(part["predicted"]), *(_cell(name, part[name]) for name in CLASS_SCORES)]
         for label, part in classes.items()],
    )  # fmt: skip


def _confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    rows = []
    for name, row in zip(classes, matrix, strict=True):
        total = max(sum(row), 1)
        rows.append([name, *(f"{value}\n{100 * value / total:.0f} %" for value in row)])
    return html.table(["true \\ predicted", *classes], rows)


def _reliability(bins: Sequence[Mapping[str, Any]]) -> str:
    """Return the accuracy of each bin of confidence beside the line of perfect calibration."""
    nan = [math.nan] * len(bins)
    seen = Series("accuracy", [b["confidence"] for b in bins], [b["accuracy"] for b in bins], nan, nan)
    line = Series("perfectly calibrated", [0, 1], [0, 1], [math.nan] * 2, [math.nan] * 2)
    number = sum(b["objects"] for b in bins)
    chart = LineChart(
        f"Reliability: accuracy by confidence ({number} objects)", "probability of the predicted class", _TICKS,
        [seen, line],
    )  # fmt: skip
    return line_chart(chart)


def _rocs(found: Classified) -> list[str]:
    """Return charts of the ROC curves, up to four classes each; with two classes the curve of the second."""
    truth, table = arrays(found.records)
    labels = [label for label in range(len(found.classes)) if 0 < (truth == label).sum() < len(truth)]
    if len(found.classes) == 2:
        labels = labels[1:]
    charts = []
    for start in range(0, len(labels), _CURVES):
        series = []
        for label in labels[start : start + _CURVES]:
            false, true = roc_curve(table[:, label], truth == label)
            kept = np.unique(np.linspace(0, len(false) - 1, min(len(false), _POINTS)).astype(int))
            nan = [math.nan] * len(kept)
            series.append(Series(found.classes[label], false[kept].tolist(), true[kept].tolist(), nan, nan))
        names = ", ".join(item.name for item in series)
        charts.append(line_chart(LineChart(f"ROC: {names} against the rest", "false positive rate", _TICKS, series)))
    return charts
