"""Figures as PNG and SVG, the same bytes for the same content."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultrasam.io.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1D2329", "#5B6570", "#E4E7EB"
# Okabe and Ito's colours, which colour-blind readers tell apart; those that show on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")


@contextmanager
def figure(width: float, height: float) -> Iterator[Figure]:
    """Give an empty figure of a size in inches, with the style of all of them, which must be saved inside."""
    # Takes a second to load, and only figures need it.
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: Any = {
        "font.family": "DejaVu Sans", "font.size": 8, "svg.hashsalt": "ultrasam", "svg.fonttype": "path",
        "text.color": INK, "axes.labelcolor": MUTED, "xtick.color": MUTED, "ytick.color": MUTED,
        "axes.titlecolor": INK, "axes.edgecolor": MUTED,
    }  # fmt: skip
    with rc_context(style):
        empty = Figure(figsize=(width, height), facecolor="white")
        FigureCanvasAgg(empty)
        yield empty


def save(drawn: Figure, out: Path, name: str) -> list[Path]:
    """Write ``NAME.png`` and ``NAME.svg``, each whole or not at all; return the paths."""
    paths = []
    # Dates and versions stay out of the files.
    for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        stream = io.BytesIO()
        drawn.savefig(stream, format=suffix, metadata=metadata, dpi=200)
        path = out / f"{name}.{suffix}"
        write_atomic(path, stream.getvalue())
        paths.append(path)
    return paths
