"""Line charts with interval bands: for a page, as SVG inside it, and as PNG and SVG files."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The page's style sheet has these by name; a file has to name them itself.
_PAGE_COLOURS = ("--ours", "--val", "--test", "--bad")
_FILE_COLOURS = ("#0072B2", "#D08A00", "#1F9D76", "#B3261E")
_INK, _MUTED, _GRID = "#1D2329", "#5B6570", "#E4E7EB"
_WIDTH, _LEFT, _TOP, _BASE, _RIGHT = 520, 46, 12, 190, 30


@dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
        name: for the legend.
        x: places on the axis.
        mean: values; NaN leaves a gap.
        low: lower ends of the intervals; NaN draws none.
        high: upper ends.
    """

    name: str
    x: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]

    def __post_init__(self) -> None:
        if len({len(values) for values in (self.x, self.mean, self.low, self.high)}) != 1:
            raise ValueError(f"the series {self.name!r} needs as many values and interval ends as places")


@dataclass(frozen=True)
class LineChart:
    """A chart of up to four series of values from 0 to 1.

    Attributes:
        title: above it.
        x_label: below its axis.
        ticks: (place, label) of the axis.
        series: drawn in order.
        connected: draw lines and bands; False draws points with bars, for places without an order.
    """

    title: str
    x_label: str
    ticks: Sequence[tuple[float, str]]
    series: Sequence[Series]
    connected: bool = True

    def floor(self) -> float:
        """Return where the upward axis starts: the tenth below everything drawn."""
        drawn = [v for s in self.series for v in (*s.mean, *s.low) if math.isfinite(v)]
        lowest = min(drawn, default=0.0)
        return min(max(math.floor(10 * lowest + 1e-9) / 10, 0.0), 0.9)

    def span(self) -> tuple[float, float]:
        """Return the ends of the axis; places without an order get room beside them."""
        places = [place for place, _ in self.ticks]
        low, high = min(places, default=0.0), max(places, default=1.0)
        room = 0.5 if not self.connected or low == high else 0.0
        return low - room, high + room


def line_chart(chart: LineChart) -> str:
    """Return a card with the chart as SVG, for `ultrasam.visualization.page`."""
    low, (left, right) = chart.floor(), chart.span()

    def across(x: float) -> float:
        return _LEFT + (x - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)

    def up(value: float) -> float:
        return _BASE - (min(max(value, low), 1) - low) / (1 - low) * (_BASE - _TOP)

    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{up(v):.1f}" y2="{up(v):.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{up(v) + 4:.1f}" text-anchor="end">{v:.3g}</text>'
        for v in (low + share * (1 - low) for share in (0, 0.25, 0.5, 0.75, 1))
    ]
    parts += [
        f'<text x="{across(place):.1f}" y="{_BASE + 20}" text-anchor="middle">{escape(label)}</text>'
        for place, label in chart.ticks
    ]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.1f}" y="{_BASE + 40}" text-anchor="middle">{escape(chart.x_label)}</text>')
    for number, series in enumerate(chart.series):
        colour = f"var({_PAGE_COLOURS[number % len(_PAGE_COLOURS)]})"
        parts += _drawn(series, colour, across, up, chart.connected)
    svg = (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_BASE + 48}" role="img" aria-label="{escape(chart.title)}">'
        f"{''.join(parts)}</svg>"
    )
    return f'<div class="card"><h3>{escape(chart.title)}</h3>{_legend(chart.series)}{svg}</div>'


def _drawn(series: Series, colour: str, across: Any, up: Any, connected: bool) -> Iterator[str]:
    """Yield the band or the bars, the line and the points of a series."""
    bounded = [(x, a, b) for x, a, b in zip(series.x, series.low, series.high, strict=True)]
    if connected:
        for run in finite_runs(bounded):
            edge = [f"{across(x):.1f},{up(high):.1f}" for x, _, high in run]
            edge += [f"{across(x):.1f},{up(low):.1f}" for x, low, _ in reversed(run)]
            yield f'<polygon points="{" ".join(edge)}" style="fill:{colour};fill-opacity:.18"/>'
        for run in finite_runs(list(zip(series.x, series.mean, strict=True))):
            way = " ".join(f"{across(x):.1f},{up(value):.1f}" for x, value in run)
            yield f'<polyline points="{way}" style="fill:none;stroke:{colour};stroke-width:2"/>'
    else:
        for run in finite_runs(bounded):
            for x, low, high in run:
                yield (
                    f'<line x1="{across(x):.1f}" x2="{across(x):.1f}" y1="{up(low):.1f}" y2="{up(high):.1f}" '
                    f'style="stroke:{colour};stroke-width:2"/>'
                )
    for x, value, low, high in zip(series.x, series.mean, series.low, series.high, strict=True):
        if math.isfinite(value):
            ends = f" ({low:.3f} to {high:.3f})" if math.isfinite(low) else ""
            yield (
                f'<circle cx="{across(x):.1f}" cy="{up(value):.1f}" r="3.5" style="fill:{colour}">'
                f"<title>{escape(series.name)}: {value:.3f}{ends}</title></circle>"
            )


def finite_runs(rows: Sequence[tuple[float, ...]]) -> Iterator[list[tuple[float, ...]]]:
    """Yield the longest stretches of rows without NaN."""
    for finite, run in groupby(rows, key=lambda row: all(map(math.isfinite, row))):
        if finite:
            yield list(run)


def _legend(series: Sequence[Series]) -> str:
    """Return the legend, empty for a single line."""
    if len(series) < 2:
        return ""
    keys = "".join(
        f'<span><i class="key" style="background:var({_PAGE_COLOURS[number % len(_PAGE_COLOURS)]})"></i>'
        f"{escape(item.name)}</span>"
        for number, item in enumerate(series)
    )
    return f'<div class="legend">{keys}</div>'


def draw_line_charts(charts: Sequence[LineChart], title: str, note: str, y_label: str) -> dict[str, bytes]:
    """Return a figure of the charts, two a row, as ``png`` and ``svg``: the same bytes for the same numbers.

    Args:
        charts: one or more.
        title: above all of them.
        note: below the title, smaller.
        y_label: of every upward axis.
    """
    # Takes a second to load, and few commands draw.
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: Any = {
        "font.family": "DejaVu Sans", "font.size": 9, "svg.hashsalt": "ultrasam", "svg.fonttype": "path",
        "text.color": _INK, "axes.labelcolor": _MUTED, "xtick.color": _MUTED, "ytick.color": _MUTED,
    }  # fmt: skip
    rows, columns = -(-len(charts) // 2), min(len(charts), 2)
    with rc_context(style):
        figure = Figure(figsize=(4.6 * columns, 0.7 + 3.0 * rows), facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(f"{title}\n", size=12, weight="bold", x=0.01, ha="left")
        height = figure.get_figheight()
        figure.text(0.01, 1 - 0.42 / height, note, color=_MUTED, size=8, va="center")
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes, chart in zip(panels, charts, strict=False):
            _draw_panel(axes, chart, y_label)
        for axes in panels[len(charts) :]:
            axes.set_visible(False)
        files = {}
        # Dates and versions stay out of the files, so that they are the same for the same numbers.
        for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            stream = io.BytesIO()
            figure.savefig(stream, format=suffix, metadata=metadata, dpi=160)
            files[suffix] = stream.getvalue()
    return files


def _draw_panel(axes: Axes, chart: LineChart, y_label: str) -> None:
    """Draw one chart."""
    for number, series in enumerate(chart.series):
        colour = _FILE_COLOURS[number % len(_FILE_COLOURS)]
        bounded = list(zip(series.x, series.low, series.high, strict=True))
        for run in finite_runs(bounded):
            places, lower, upper = (list(values) for values in zip(*run, strict=True))
            if chart.connected:
                axes.fill_between(places, lower, upper, color=colour, alpha=0.18, linewidth=0)
            else:
                axes.vlines(places, lower, upper, color=colour, linewidth=1.6)
        line = "-" if chart.connected else "none"
        axes.plot(series.x, series.mean, color=colour, linestyle=line, marker="o", markersize=4, label=series.name)
    axes.set_title(chart.title, size=10, loc="left")
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(y_label)
    axes.set_xticks([place for place, _ in chart.ticks], [label for _, label in chart.ticks])
    low, high = chart.span()
    margin = 0.03 * (high - low)
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(chart.floor(), 1.0)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.tick_params(length=0)
    for name in ("top", "right", "left"):
        axes.spines[name].set_visible(False)
    axes.spines["bottom"].set_color(_MUTED)
    if len(chart.series) > 1:
        axes.legend(frameon=False, fontsize=8)
