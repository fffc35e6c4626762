"""Charts of the page as inline SVG: colours come from the page's style, so they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 28, 14, 46
# Half an octave to a bar, from 2 to 1024 pixels.
_STEPS = 2
_OCTAVES = (1, 10)


def axis_steps(most: float) -> list[int]:
    """Return two to six round, equally spaced whole numbers from 0 to at least ``most``."""
    power = 10 ** max(math.floor(math.log10(max(most, 1) / 5)), 0)
    steps = (power, 2 * power, *([25 * power // 10] if power > 1 else []), 5 * power, 10 * power)
    step = next(step for step in steps if 5 * step >= most)
    return [number * step for number in range(max(math.ceil(most / step), 1) + 1)]


def diameter_histogram(diameters: NDArray[np.float32]) -> str:
    """Return the distribution of object diameters (pixels of 1024), half an octave to a bar."""
    low, high = _OCTAVES
    octaves = np.log2(np.clip(diameters, 2.0**low, 2.0**high * (1 - 1e-6)))
    counts, _ = np.histogram(octaves, bins=(high - low) * _STEPS, range=(low, high))
    steps = axis_steps(float(counts.max(initial=0)))
    top = steps[-1]
    across = (WIDTH - _LEFT - _RIGHT) / len(counts)
    parts = [_grid_lines(steps)]
    for number, count in enumerate(counts.tolist()):
        x, size = _LEFT + number * across, count / top * _plot_height()
        edges = f"{2 ** (low + number / _STEPS):.0f} to {2 ** (low + (number + 1) / _STEPS):.0f} pixels"
        parts.append(f'<rect class="bar" x="{x + 1:.1f}" y="{_TOP + _plot_height() - size:.1f}" '
                     f'width="{across - 2:.1f}" height="{size:.1f}"><title>{edges}: {count:,}</title></rect>')
    for octave in range(low, high + 1):
        x = _LEFT + (octave - low) * _STEPS * across
        parts.append(_text(x, HEIGHT - _BOTTOM + 18, str(2**octave), "middle"))
    return _svg(parts, "diameter at a long side of 1024 pixels (log scale)", "objects",
                "Histogram of object diameters")


def image_size_chart(sizes: Mapping[tuple[int, int], int]) -> str:
    """Return widths and heights of the images: one disc per size, its area grows with the number of images.

    Sizes are rounded to a sixty-fourth of the larger axis, so that 2,000 different sizes stay a small picture.
    """
    steps = axis_steps(max((max(size) for size in sizes), default=1))
    top = steps[-1]
    cell = top / 64
    discs: dict[tuple[int, int], int] = {}
    for (width, height), count in sizes.items():
        key = (round(width / cell), round(height / cell))
        discs[key] = discs.get(key, 0) + count
    most = max(discs.values(), default=1)
    across = WIDTH - _LEFT - _RIGHT
    parts = [_grid_lines(steps)]
    # Large ones first, so that small ones lie on top.
    for (column, row), count in sorted(discs.items(), key=lambda item: (-item[1], item[0])):
        x, y = _LEFT + column * cell / top * across, _TOP + (1 - row * cell / top) * _plot_height()
        radius = 2 + 13 * math.sqrt(count / most)
        parts.append(f'<circle class="disc" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>about '
                     f'{column * cell:.0f} x {row * cell:.0f} pixels: {count:,} images</title></circle>')
    for value in steps:
        parts.append(_text(_LEFT + value / top * across, HEIGHT - _BOTTOM + 18, f"{value:,}", "middle"))
    return _svg(parts, "width in pixels", "height in pixels", "Widths and heights of the images")


def _plot_height() -> int:
    """Return the height of the drawing area."""
    return HEIGHT - _TOP - _BOTTOM


def _grid_lines(steps: Sequence[int]) -> str:
    """Return horizontal lines with their values; the last one is the top."""
    parts = []
    for value in steps:
        y = _TOP + (1 - value / steps[-1]) * _plot_height()
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{WIDTH - _RIGHT}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{value:,}", "end"))
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    """Return a line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(parts: list[str], below: str, left: str, title: str) -> str:
    """Return the drawing with the names of its axes."""
    middle = _TOP + _plot_height() / 2
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'{"".join(parts)}{_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 6, below, "middle")}'
        f'<text x="14" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 14 {middle:.1f})">'
        f'{escape(left)}</text></svg>'
    )
