"""Page and figure of the robustness curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ultrasam.evaluation.robustness_curves import TITLES, Curve, Point
from ultrasam.visualization import page as html
from ultrasam.visualization.lines import LineChart, Series, draw_line_charts, line_chart

_AXES = {
    "jitter": "corners moved by up to this share of the box's sides",
    "position": "",
    "clicks": "clicks, from the second on where the error is largest",
    "size": "share of the image",
}
PROTOCOL = (
    "Every image is encoded once; all prompts are asked of that embedding. Boxes: each corner moves by a uniform draw, "
    "the same draw of an object for every share. Positions: the pixel deepest inside the object, the mean of its "
    "pixels (which may lie outside), a random pixel, a random pixel that touches the outside. Clicks: the first at the "
    "deepest pixel; each further one at the deepest pixel of the largest connected error, inside where the object was "
    "missed and outside where the mask is superfluous, together with all clicks before and, unless the model has no "
    "mask prompts, the previous logits. Sizes: one click at the deepest pixel, and the exact box. Dice: mean over "
    "objects; intervals: 95 %, bootstrap over patients or videos. Differences are paired by object, to the first line "
    "of a curve."
)


def charts_of(curves: Sequence[Curve]) -> list[LineChart]:
    """Return one chart a kind of curve."""
    charts = []
    for kind in TITLES:
        members = [curve for curve in curves if curve.kind == kind]
        if members:
            charts.append(_chart(kind, members))
    return charts


def _chart(kind: str, curves: Sequence[Curve]) -> LineChart:
    """Return the chart of curves of one kind; sizes stand side by side, whatever bins are empty."""
    ticks = sorted({point.x: point.condition for curve in curves for point in curve.points}.items())
    places = {x: float(number) for number, (x, _) in enumerate(ticks)} if kind == "size" else {}
    series = [
        Series(
            curve.prompt,
            [places.get(point.x, point.x) for point in curve.points],
            *([getattr(point.dice, name) for point in curve.points] for name in ("mean", "low", "high")),
        )
        for curve in curves
    ]
    shown = [(places.get(x, x), label.removesuffix(" %").replace(" to ", "–")) for x, label in ticks]
    label = f"{_AXES[kind]}, %" if kind == "size" else _AXES[kind]
    return LineChart(TITLES[kind], label, shown, series, connected=kind != "position")


def figure_files(curves: Sequence[Curve], name: str) -> dict[str, bytes]:
    """Return the figure as ``png`` and ``svg``."""
    some = curves[0].points[0].dice
    note = (
        f"Dice, mean over {some.objects:,} objects with its 95 % interval "
        f"(bootstrap over {some.groups:,} patients or videos)"
    )
    return draw_line_charts(charts_of(curves), name, note, "Dice")


def robustness_page(
    curves: Sequence[Curve], cost: Mapping[str, float | int], provenance: Mapping[str, Any], title: str
) -> str:
    """Return the page.

    Args:
        curves: of one model.
        cost: see `ultrasam.evaluation.robustness.Cost.record`.
        provenance: what `robustness.json` holds besides the curves.
        title: of the page.
    """
    first = {curve.kind: curve.points for curve in curves}
    items = [(_value(first["jitter"][0].dice.mean), "Dice, exact box")]
    if "clicks" in first:
        clicks = first["clicks"]
        items += [(_value(point.dice.mean), f"Dice, {point.condition} click{'s' * (point.condition != '1')}")
                  for point in (clicks[0], clicks[-1])[: len(clicks)]]  # fmt: skip
    some = first["jitter"][0].dice
    items += [(f"{some.objects:,}", "objects"), (f"{cost['images']:,}", "images")]
    items.append((f"{some.groups:,}", "patients or videos"))
    body = "".join((
        html.tiles(items),
        "<h2>Curves</h2>",
        f'<div class="charts">{"".join(line_chart(chart) for chart in charts_of(curves))}</div>',
        "<h2>Numbers</h2>",
        *(_table(curve) for curve in curves),
        "<h2>Protocol</h2>",
        f"<p>{escape(PROTOCOL)}</p>",
        f"<p>{escape(cost_sentence(cost))}</p>",
        "<h2>Origin</h2>",
        html.origin_list({key: value for key, value in provenance.items() if key not in ("curves", "cost")}),
    ))  # fmt: skip
    checkpoint = provenance.get("checkpoint") or {}
    name = str(checkpoint.get("path", "")).replace("\\", "/").rsplit("/", 1)[-1]
    return html.page(title, escape(f"{name} ({str(checkpoint.get('sha256', ''))[:12]})"), body)


def cost_sentence(cost: Mapping[str, float | int]) -> str:
    """Return what an object took."""
    return (
        f"{cost['masks_per_object']:.1f} masks an object took {cost['prompt_seconds_per_object']:.3f} s "
        f"({cost['prompt_seconds_per_mask']:.3f} s a mask: decoder, enlarging, Dice, choice of clicks); "
        f"encoding, once an image, {cost['encode_seconds_per_image']:.3f} s."
    )


def _table(curve: Curve) -> str:
    """Return the numbers of a curve."""
    rows = [
        [point.condition, *_mean_cells(point), str(point.dice.objects), str(point.dice.groups)]
        for point in curve.points
    ]
    head = [f"{TITLES[curve.kind]} ({curve.prompt})", "Dice", "difference", "p", "objects", "patients or videos"]
    return html.table(head, rows)


def _mean_cells(point: Point) -> tuple[str, str, str]:
    """Return mean, difference (each with its interval below) and p-value."""
    dice, change = point.dice, point.difference
    mean = _value(dice.mean)
    if math.isfinite(dice.low):
        mean += f"\n{_value(dice.low)} to {_value(dice.high)}"
    if change is None:
        return mean, "", ""
    shown = f"{100 * change.difference:+.1f}"
    if math.isfinite(change.low):
        shown += f"\n{100 * change.low:+.1f} to {100 * change.high:+.1f}"
    return mean, shown, f"{change.p_value:.4f}"


def _value(share: float) -> str:
    return f"{100 * share:.1f}"
