"""The HTML page of a test: scores with intervals, distributions, and the worst, median and best objects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from ultrasam.errors import DataError
from ultrasam.evaluation.measures import MEASURES
from ultrasam.evaluation.records import ObjectRecord
from ultrasam.evaluation.results import Evaluation
from ultrasam.geometry.rle import decode_mask
from ultrasam.io.images import read_image
from ultrasam.visualization import page as html
from ultrasam.visualization.overlay import draw_overlay

TITLES = {
    "segm_mAP": "mask mAP", "segm_mAP_50": "mask mAP50", "bbox_mAP": "box mAP", "bbox_mAP_50": "box mAP50",
    "dice": "Dice", "iou": "IoU", "boundary_iou": "boundary IoU", "nsd": "surface Dice", "hd95": "HD95 (px)",
    "assd": "ASSD (px)", "nsd_mm": "surface Dice (mm)", "hd95_mm": "HD95 (mm)", "assd_mm": "ASSD (mm)",
}  # fmt: skip
_SHARES = ("segm_mAP", "segm_mAP_50", "bbox_mAP", "bbox_mAP_50", "dice", "iou", "boundary_iou", "nsd", "nsd_mm")
_EXAMPLES = 4
ORDERS = {"logits": "enlarge, then threshold", "released": "threshold, then enlarge"}


def results_page(evaluation: Evaluation, provenance: Mapping[str, Any], title: str, pictures: bool = True) -> str:
    """Return the page.

    Args:
        evaluation: the objects and their scores.
        provenance: what `metrics.json` holds besides the scores.
        title: of the page.
        pictures: show objects on their images; without, the page can be given on where the images must not.

    Raises:
        DataError: an image to show cannot be read.
    """
    found = evaluation.breakdown
    body = "".join((
        html.tiles(_tiles(found)),
        "<h2>Scores</h2>",
        '<p class="muted">Mean over objects with its 95 % interval (bootstrap over patients or videos). '
        "Average precision of one mask a prompt, ranked by predicted IoU.</p>",
        _scores(found),
        _mask_orders(found),
        "<h2>Distributions</h2>",
        _charts(evaluation),
        _examples(evaluation) if pictures else "",
        "<h2>Rules and origin</h2>",
        _origin(found, provenance),
    ))  # fmt: skip
    intro = escape(f"{_checkpoint(provenance)}; prompt: {', '.join(provenance.get('prompt', [])) or 'as configured'}")
    return html.page(title, intro, body)


def _tiles(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the large numbers."""
    overall = found["overall"]
    items = [(_mean(name, overall[name]), TITLES[name]) for name in ("segm_mAP", "segm_mAP_50", "dice", "hd95")
             if name in overall]  # fmt: skip
    counts = overall["counts"]
    return [*items, (f"{counts['objects']:,}", "objects"), (f"{counts['images']:,}", "images"),
            (f"{counts['groups']:,}", "patients or videos")]  # fmt: skip


def _scores(found: Mapping[str, Any]) -> str:
    """Return the table of all parts."""
    parts = [("all objects", found["overall"])]
    parts.append(("per image", found["per_image"]))
    for heading, key in (("data set", "datasets"), ("application", "applications"), ("size", "sizes")):
        parts.extend((f"{heading}: {name}", part) for name, part in found[key].items())
    names = [name for name in TITLES if any(name in part for _, part in parts)]
    rows = [
        [label, str(part.get("counts", {}).get("objects", "")), *(_cell(name, part.get(name)) for name in names)]
        for label, part in parts
    ]
    counts = found["overall"]["counts"]
    empty = (
        f'<p class="muted">Empty masks: {counts["missed"]} objects got none, {counts["truth_empty"]} have no true '
        f"pixel, {counts['both_empty']} neither. {escape(found['rules']['empty_masks'])}</p>"
    )
    return html.table(["part", "objects", *(TITLES[name] for name in names)], rows) + empty


def _mask_orders(found: Mapping[str, Any]) -> str:
    """Return the section that compares the two mask orders, empty where one was tested."""
    orders = found.get("mask_orders")
    if orders is None:
        return ""
    first, second, change = found["overall"], orders["parts"]["overall"], orders["difference"]
    rows = [
        [TITLES[name], _cell(name, first[name]), _cell(name, second[name]), *_change(name, change[name])]
        for name in TITLES
        if name in change
    ]
    head = ["score", ORDERS[orders["configured"]], ORDERS[orders["other"]], "difference", "p"]
    return (
        "<h2>Mask orders</h2>"
        '<p class="muted">The same logits and predicted IoU, enlarged and thresholded in two orders. Difference: '
        "second minus first, paired by object, with its 95 % interval and the p-value of a permutation test.</p>"
        + html.table(head, rows)
    )


def _change(name: str, item: Mapping[str, Any]) -> tuple[str, str]:
    """Return a difference with its interval below it, and its p-value."""
    factor, digits = (100, 1) if name in _SHARES else (1, 2)
    shown = f"{factor * item['difference']:+.{digits}f}"
    low, high = item["low"], item["high"]
    if low is not None and math.isfinite(low):
        shown += f"\n{factor * low:+.{digits}f} to {factor * high:+.{digits}f}"
    return shown, f"{item['p_value']:.4f}"


def _cell(name: str, interval: Mapping[str, Any] | None) -> str:
    """Return a mean and, below it, its interval."""
    if interval is None:
        return ""
    low, high = interval["low"], interval["high"]
    if low is None or math.isnan(low):
        return _mean(name, interval)
    return f"{_mean(name, interval)}\n{_number(name, low)} to {_number(name, high)}"


def _mean(name: str, interval: Mapping[str, Any]) -> str:
    return _number(name, interval["mean"])


def _number(name: str, value: float) -> str:
    return f"{100 * value:.1f}" if name in _SHARES else f"{value:.2f}"


def _charts(evaluation: Evaluation) -> str:
    """Return the charts of distributions."""
    scores = {name: np.array([getattr(m, name) for m in evaluation.measures], np.float64) for name in MEASURES}
    area = np.array([record.truth_area for record in evaluation.records], np.float64)
    predicted = np.array([record.score for record in evaluation.records], np.float64)
    charts = [html.histogram(scores["dice"], "Dice", 0, 1), _distances(scores["hd95"], "HD95, pixels")]
    if np.isfinite(scores["hd95_mm"]).any():
        charts.append(_distances(scores["hd95_mm"], "HD95, mm"))
    span = (max(float(area.min(initial=1)), 1), max(float(area.max(initial=10)), 10))
    charts.append(
        html.scatter(area, scores["dice"], "Dice against the object's area, pixels", span, (0, 1), log_x=True)
    )
    charts.append(html.scatter(predicted, scores["iou"], "IoU against predicted IoU", (0, 1), (0, 1), diagonal=True))
    return f'<div class="charts">{"".join(charts)}</div>'


def _distances(values: npt.NDArray[np.float64], title: str) -> str:
    """Return a histogram up to the 98th percentile, with what is beyond in its last bin."""
    finite = values[np.isfinite(values)]
    top = max(float(np.percentile(finite, 98)), 1e-6) if len(finite) else 1.0
    return html.histogram(values, f"{title} (last bar: {top:.3g} and more)", 0, top)


def _examples(evaluation: Evaluation) -> str:
    """Return the pictures of the worst, median and best objects by Dice."""
    scored = [number for number, found in enumerate(evaluation.measures) if math.isfinite(found.dice)]
    ranked = sorted(scored, key=lambda number: (evaluation.measures[number].dice, evaluation.records[number].key))
    parts = []
    for name, chosen in extremes(ranked, _EXAMPLES):
        shown = "".join(
            html.picture(draw_object(evaluation.records[number]), _caption(evaluation, number)) for number in chosen
        )
        parts.append(f'<div class="card"><h3>{name}</h3><div class="strip">{shown}</div></div>')
    legend = '<p class="muted">Prediction blue, truth orange, prompt green or yellow.</p>'
    return f"<h2>Examples</h2>{legend}{''.join(parts)}"


def extremes(ranked: Sequence[int], count: int) -> list[tuple[str, list[int]]]:
    """Return up to ``count`` numbers from the start, the middle and the end of a ranking, none twice."""
    ranked = list(ranked)
    if len(ranked) < 3 * count:
        third = max(-(-len(ranked) // 3), 1)
        parts = [ranked[:third], ranked[third : 2 * third], ranked[2 * third :]]
    else:
        middle = (len(ranked) - count) // 2
        parts = [ranked[:count], ranked[middle : middle + count], ranked[-count:]]
    return [(name, part) for name, part in zip(("worst", "median", "best"), parts, strict=True) if part]


def draw_object(record: ObjectRecord) -> npt.NDArray[np.uint8]:
    """Return the overlay of one object on its image.

    Raises:
        DataError: the image cannot be read or has another size.
    """
    image = read_image(record.image_path)
    if list(image.shape[:2]) != list(record.truth["size"]):
        raise DataError(
            f"{record.image_path}: {record.truth['size']} (height, width) was expected, found {image.shape[:2]}; "
            "the image was changed after the test"
        )
    clicks = record.points
    return draw_overlay(
        image,
        prediction=None if record.mask is None else decode_mask(record.mask),
        truth=decode_mask(record.truth),
        points=[(x, y) for x, y, _ in clicks] if clicks else None,
        point_labels=[label for _, _, label in clicks] if clicks else None,
        boxes=None if record.prompt_box is None else [record.prompt_box],
    )


def _caption(evaluation: Evaluation, number: int) -> str:
    record, found = evaluation.records[number], evaluation.measures[number]
    name = record.image_path.replace("\\", "/").rsplit("/", 1)[-1]
    return f"{name}: Dice {found.dice:.3f}, HD95 {found.hd95:.1f} px, predicted IoU {record.score:.2f}"


def _checkpoint(provenance: Mapping[str, Any]) -> str:
    checkpoint = provenance.get("checkpoint") or {}
    name = str(checkpoint.get("path", "")).replace("\\", "/").rsplit("/", 1)[-1]
    return f"{name or 'no checkpoint'} ({str(checkpoint.get('sha256', ''))[:12]})"


def _origin(found: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """Return the rules and the provenance as a list."""
    shown = {
        **found["rules"],
        **{key: value for key, value in provenance.items() if key not in ("metrics", "breakdown")},
    }
    return html.origin_list(shown)
