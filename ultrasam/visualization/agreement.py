"""Bland-Altman plot: the difference of two measurements against their mean, with the limits of agreement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BASE = 520, 248, 58, 92, 12, 196
# The page's style sheet has these by name; a file has to name them itself.
_FILE_STYLE = (
    "<style>text{font:12.5px sans-serif;fill:#5B6570}.grid{stroke:#E4E7EB}.disc{fill:#0072B2;fill-opacity:.45}"
    ".mean{stroke:#0072B2}.limit{stroke:#D08A00}</style>"
)
_PAGE_STYLE = "<style>.chart .mean{stroke:var(--ours)}.chart .limit{stroke:var(--val)}</style>"


def bland_altman(
    truth: npt.NDArray[np.float64],
    predicted: npt.NDArray[np.float64],
    lines: Sequence[tuple[str, float, float, float]],
    unit: str,
    *,
    standalone: bool = False,
) -> str:
    """Return the plot as SVG: for a page, or as a file of its own.

    Args:
        truth: (N,) values.
        predicted: (N,), in the same unit.
        lines: (name, value, lower end, upper end) of the mean difference first and then of the limits; the ends of an
            interval may be NaN.
        unit: of the values, for the axes.
        standalone: with a style and a white ground of its own.
    """
    x, y = (truth + predicted) / 2, predicted - truth
    low_x, high_x = _span(x)
    bounds = [value for _, *values in lines for value in values if math.isfinite(value)]
    low_y, high_y = _span(np.concatenate([y, np.array(bounds), np.zeros(1)]))

    def across(value: float) -> float:
        return _LEFT + (value - low_x) / (high_x - low_x) * (_WIDTH - _LEFT - _RIGHT)

    def up(value: float) -> float:
        return _BASE - (value - low_y) / (high_y - low_y) * (_BASE - _TOP)

    right = _WIDTH - _RIGHT
    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        height, place = low_y + share * (high_y - low_y), low_x + share * (high_x - low_x)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{up(height):.1f}" y2="{up(height):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{up(height) + 4:.1f}" text-anchor="end">{height:.3g}</text>')
        parts.append(f'<text x="{across(place):.1f}" y="{_BASE + 18}" text-anchor="middle">{place:.3g}</text>')
    for number, (name, value, low, high) in enumerate(lines):
        if not math.isfinite(value):
            continue
        kind = "limit" if number else "mean"
        if math.isfinite(low) and math.isfinite(high):
            parts.append(
                f'<rect class="{kind}" x="{_LEFT}" y="{up(high):.1f}" width="{right - _LEFT}" '
                f'height="{up(low) - up(high):.1f}" style="stroke:none;fill-opacity:.07"/>'
            )
        dashes = ' stroke-dasharray="5 4"' if number else ""
        parts.append(
            f'<line class="{kind}" x1="{_LEFT}" x2="{right}" y1="{up(value):.1f}" y2="{up(value):.1f}" '
            f'stroke-width="1.5"{dashes}/><text x="{right + 6}" y="{up(value) + 4:.1f}">{escape(name)} '
            f"{value:.3g}</text>"
        )
    parts += [
        f'<circle class="disc" cx="{across(a):.1f}" cy="{up(b):.1f}" r="3"><title>mean {a:.4g}, difference {b:+.4g}'
        "</title></circle>"
        for a, b in zip(x.tolist(), y.tolist(), strict=True)
    ]
    label = f" ({escape(unit)})" if unit else ""
    parts.append(
        f'<text x="{(_LEFT + right) / 2:.1f}" y="{_BASE + 38}" text-anchor="middle">mean of true and predicted{label}; '
        f"upwards: predicted minus true</text>"
    )
    name = "Bland-Altman plot"
    head = f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}"'
    if standalone:
        ground = f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>'
        return f'{head} xmlns="http://www.w3.org/2000/svg">{_FILE_STYLE}{ground}{"".join(parts)}</svg>\n'
    return f'<div class="card"><h3>{name}</h3>{_PAGE_STYLE}{head}>{"".join(parts)}</svg></div>'


def _span(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the ends of an axis: the values with a little room."""
    low, high = float(values.min()), float(values.max())
    room = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
    return low - room, high + room
