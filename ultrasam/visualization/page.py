"""Parts of a self-contained HTML page: tables, charts as SVG, and pictures inside the file."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ultrasam.visualization.style import CSS

# Absolute paths inside of a sentence; the group is the name.
ABSOLUTE = re.compile(r"(?<!\S)/(?:[^\s/]+/)*([^\s/]+)")


def shown(value: Any) -> str:
    """Return a value of the provenance as text; of absolute paths the name alone, so that a page can be given on."""
    if isinstance(value, str):
        return Path(value).name if Path(value).is_absolute() else ABSOLUTE.sub(r"\1", value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {shown(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(shown(item) for item in value)
    return json.dumps(value, ensure_ascii=False, default=str)


def origin_list(items: Mapping[str, Any]) -> str:
    """Return rules and provenance as a list, values as ``shown`` gives them."""
    rows = "".join(
        f"<dt>{escape(str(key).replace('_', ' '))}</dt><dd>{escape(shown(value))}</dd>" for key, value in items.items()
    )
    return f'<div class="card"><dl>{rows}</dl></div>'


def page(title: str, intro: str, body: str) -> str:
    """Return a whole page; ``intro`` and ``body`` are HTML, ``title`` is text."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>\n<body><main>\n"
        f'<h1>{escape(title)}</h1><p class="muted">{intro}</p>\n{body}\n</main></body></html>\n'
    )


def tiles(items: Sequence[tuple[str, str]]) -> str:
    """Return large numbers with a word below each: (number, word)."""
    cells = "".join(f"<div class=tile><b>{escape(number)}</b>{escape(word)}</div>" for number, word in items)
    return f'<div class="tiles">{cells}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """Return a table; cells are text, those beyond the first ``text_columns`` numbers on the right.

    A cell may hold a second line after a newline, which is set smaller.
    """
    titles = "".join(
        f"<th{'' if number < text_columns else ' class=n'}>{escape(name)}</th>" for number, name in enumerate(head)
    )
    lines = []
    for row in rows:
        cells = "".join(
            f"<td{'' if number < text_columns else ' class=n'}>{_two_lines(cell)}</td>"
            for number, cell in enumerate(row)
        )
        lines.append(f"<tr>{cells}</tr>")
    return (
        f'<div class="card scroll"><table><thead><tr>{titles}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def picture(pixels: npt.NDArray[np.uint8], caption: str, height: int = 320) -> str:
    """Return a figure with the picture (H, W, 3) inside the page as JPEG, at most twice ``height`` pixels high."""
    image = Image.fromarray(pixels)
    image.thumbnail((4 * height, 2 * height))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    data = base64.b64encode(stream.getvalue()).decode()
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" alt="{escape(caption)}" style="height:{height}px">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def histogram(values: npt.NDArray[np.float64], title: str, low: float, high: float, bins: int = 25) -> str:
    """Return a card with a histogram of finite values; those beyond ``high`` are in the last bin."""
    values = values[np.isfinite(values)]
    counts, edges = np.histogram(np.clip(values, low, high), bins, (low, high))
    top = max(int(counts.max(initial=0)), 1)
    width, base, left = 520, 170, 46
    step = (width - left - 10) / bins
    bars = "".join(
        f'<rect class="bar" x="{left + number * step + 0.5:.1f}" y="{base - 140 * count / top:.1f}" '
        f'width="{step - 1:.1f}" height="{140 * count / top:.1f}"><title>{edges[number]:.3g} to '
        f"{edges[number + 1]:.3g}: {count}</title></rect>"
        for number, count in enumerate(counts)
    )
    ticks = "".join(
        f'<text x="{left + share * (width - left - 10):.1f}" y="{base + 18}" text-anchor="middle">'
        f"{low + share * (high - low):.3g}</text>"
        for share in (0, 0.25, 0.5, 0.75, 1)
    )
    lines = "".join(
        _rule(left, width - 10, base - 140 * share)
        + f'<text x="{left - 6}" y="{base - 140 * share + 4:.1f}" text-anchor="end">{round(top * share)}</text>'
        for share in (0, 0.5, 1)
    )
    return _chart(title, f"{lines}{bars}{ticks}", width, base + 26)


def scatter(
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    title: str,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    *,
    log_x: bool = False,
    diagonal: bool = False,
    most: int = 2000,
) -> str:
    """Return a card with a scatter plot of the finite pairs; of more than ``most`` every n-th is drawn."""
    kept = np.isfinite(x) & np.isfinite(y)
    x, y = x[kept], y[kept]
    stride = max(len(x) // most, 1)
    width, base, left, tall = 520, 190, 46, 165
    scale = np.log10 if log_x else (lambda value: np.asarray(value, np.float64))
    start, stop = (float(scale(value)) for value in x_range)
    across = left + (scale(np.clip(x[::stride], *x_range)) - start) / (stop - start) * (width - left - 12)
    up = base - (np.clip(y[::stride], *y_range) - y_range[0]) / (y_range[1] - y_range[0]) * tall
    discs = "".join(f'<circle class="disc" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in zip(across, up, strict=True))
    lines = "".join(
        _rule(left, width - 12, base - tall * share)
        + f'<text x="{left - 6}" y="{base - tall * share + 4:.1f}" text-anchor="end">'
        f"{y_range[0] + share * (y_range[1] - y_range[0]):.3g}</text>"
        for share in (0, 0.25, 0.5, 0.75, 1)
    )
    ticks = "".join(
        f'<text x="{left + share * (width - left - 12):.1f}" y="{base + 18}" text-anchor="middle">'
        f"{(10 ** (start + share * (stop - start)) if log_x else start + share * (stop - start)):.3g}</text>"
        for share in (0, 0.25, 0.5, 0.75, 1)
    )
    line = f'<line class="grid" x1="{left}" y1="{base}" x2="{width - 12}" y2="{base - tall}"/>' if diagonal else ""
    return _chart(title, f"{lines}{line}{discs}{ticks}", width, base + 26)


def _rule(left: float, right: float, height: float) -> str:
    """Return a horizontal line of the grid."""
    return f'<line class="grid" x1="{left}" x2="{right}" y1="{height:.1f}" y2="{height:.1f}"/>'


def _chart(title: str, drawing: str, width: int, height: int) -> str:
    return (
        f'<div class="card"><h3>{escape(title)}</h3><svg class="chart" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title)}">{drawing}</svg></div>'
    )


def _two_lines(cell: str) -> str:
    first, _, second = cell.partition("\n")
    return escape(first) + (f"<br><small>{escape(second)}</small>" if second else "")
