"""The paper's Figure 2 beside ours: masks per clinical application, as PNG and SVG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from data_prep.report.paper import masks_by_application
from data_prep.report.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS, PAPER = "#0072B2", "#B9C0C9"
_INK, _MUTED, _GRID = "#1D2329", "#5B6570", "#E4E7EB"


def figure2_rows(summary: Summary) -> list[tuple[str, int, int]]:
    """Return (application, our masks, the paper's masks), most masks first."""
    ours, paper = summary.masks_by_application(), masks_by_application(summary.infos)
    rows = [(name, ours[name], paper[name]) for name in {*ours, *paper}]
    return sorted(rows, key=lambda row: (-max(row[1:]), row[0]))


def subtitle(summary: Summary) -> str:
    """Return what the bars stand for."""
    known = sum(row.info is not None for row in summary.rows)
    done = sum(row.info is not None for row in summary.converted)
    own = len(summary.converted) - done
    return f"{done} of {known} sets converted" + (f", and {own} of your own" if own else "")


def draw_figure2(summary: Summary) -> dict[str, bytes]:
    """Return the figure as bytes by file name, the same bytes for the same numbers."""
    # Takes a second to load, and only this command draws.
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = figure2_rows(summary)
    style: Any = {
        "font.family": "DejaVu Sans", "font.size": 9, "svg.hashsalt": "us-43d", "svg.fonttype": "path",
        "text.color": _INK, "axes.labelcolor": _MUTED, "xtick.color": _MUTED, "ytick.color": _INK,
    }  # fmt: skip
    with rc_context(style):
        figure = Figure(figsize=(8.2, 1.45 + 0.36 * len(rows)), facecolor="white")
        FigureCanvasAgg(figure)
        high = figure.get_figheight()
        axes = figure.add_axes((0.2, 0.55 / high, 0.77, 1 - 1.45 / high))
        _draw_bars(axes, rows)
        figure.text(0.02, 1 - 0.32 / high, "US-43d by clinical application", size=13, weight="bold", va="center")
        figure.text(0.02, 1 - 0.6 / high, f"annotated masks; {subtitle(summary)}", color=_MUTED, va="center")
        figure.legend(*axes.get_legend_handles_labels(), frameon=False, ncols=2, loc="center right",
                      bbox_to_anchor=(0.99, 1 - 0.6 / high), handlelength=1.2, columnspacing=1.4)
        files = {}
        # Dates and versions stay out of the files, so that they are the same for the same numbers.
        for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            stream = io.BytesIO()
            figure.savefig(stream, format=suffix, metadata=metadata, dpi=200)
            files[f"figure2.{suffix}"] = stream.getvalue()
    return files


def _draw_bars(axes: Axes, rows: list[tuple[str, int, int]]) -> None:
    """Draw a pair of bars per application: ours above the paper's."""
    most = max(max(row[1:]) for row in rows) or 1
    places = range(len(rows))
    for offset, column, colour, ink, label in ((-0.19, 1, OURS, _INK, "on this disk"),
                                               (0.19, 2, PAPER, _MUTED, "paper, Table 1")):
        values = [int(row[column]) for row in rows]
        axes.barh([place + offset for place in places], values, height=0.36, color=colour, label=label)
        for place, value in zip(places, values, strict=True):
            axes.text(value + 0.006 * most, place + offset, f"{value:,}", va="center", fontsize=7, color=ink)
    axes.set_yticks(list(places), [row[0] for row in rows])
    axes.invert_yaxis()
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, most * 1.09)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("masks")
    axes.set_axisbelow(True)
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    axes.tick_params(length=0)
    for name in ("top", "right", "bottom"):
        axes.spines[name].set_visible(False)
    axes.spines["left"].set_color(_MUTED)
