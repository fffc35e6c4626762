"""Small pieces of HTML that several parts of the page use."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from data_prep.splits import SPLITS

_LONGEST_LINK = 60


def numbers(cells: Iterable[str]) -> str:
    """Return table cells that hold numbers."""
    return "".join(f"<td class=n>{escape(cell)}</td>" for cell in cells)


def sides(counts: list[int]) -> str:
    """Return a bar of three parts, and the three numbers below it."""
    total = sum(counts) or 1
    parts = "".join(f'<i class={split} style="width:{100 * count / total:.2f}%"></i>'
                    for split, count in zip(SPLITS, counts, strict=True))
    return f'<div class=sides>{parts}</div><small>{" / ".join(f"{count:,}" for count in counts)}</small>'


def link(address: str) -> str:
    """Return a link that shows where it leads; empty without an address."""
    shown = address.removeprefix("https://").removeprefix("http://").rstrip("/")
    short = shown if len(shown) <= _LONGEST_LINK else f"{shown[:_LONGEST_LINK - 3]}..."
    return f'<a href="{escape(address)}">{escape(short)}</a>' if address else ""
