"""Figure 2: images and masks of the collection by application and by set, beside the paper's."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultrasam.io.files import write_atomic
from ultrasam.reproduce.canvas import COLOURS, GRID, INK, MUTED, figure, save
from ultrasam.reproduce.collection import Collection, Count, Entry, read_collection

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import Locator

# What is counted: name, colour, shape, and how far from the middle of its line it is drawn.
QUANTITIES = (("images", COLOURS[0], "o", -0.17), ("masks", COLOURS[1], "s", 0.17))
BAND = "#F3F5F7"
# Heights of a line, above and below the panels, and of the legend, in inches.
_LINE, _HEAD, _FOOT, _LEGEND = 0.168, 0.45, 0.55, 0.7


def draw_figure2(root: Path, out: Path) -> tuple[Collection, list[Path]]:
    """Count a collection and write ``figure2.csv``, ``figure2.png`` and ``figure2.svg``.

    Args:
        root: of the prepared data.
        out: folder to write.

    Returns:
        what was counted, and the paths.

    Raises:
        DataError: the collection cannot be read.
    """
    found = read_collection(root)
    table = out / "figure2.csv"
    write_atomic(table, comma_separated(found).encode())
    high = _LINE * (len(found.sets) + 1) + _HEAD + _FOOT
    with figure(9.2, high) as drawn:
        top, bottom = 1 - _HEAD / high, _FOOT / high
        legend = _LEGEND / high
        applications = drawn.add_axes((0.155, bottom + legend, 0.31, top - bottom - legend))
        sets = drawn.add_axes((0.645, bottom, 0.335, top - bottom))
        order = [item.name for item in found.applications]
        _draw(applications, found.applications, order, "by application")
        _draw(sets, found.sets, order, "by data set")
        drawn.legend(*applications.get_legend_handles_labels(), frameon=False, loc="lower left",
                     bbox_to_anchor=(0.145, bottom), ncols=2, handletextpad=0.4, columnspacing=1.6)  # fmt: skip
        drawn.text(0.02, 0.12 / high, caption(found), ha="left", va="bottom", fontsize=6.5, color=MUTED)
        return found, [table, *save(drawn, out, "figure2")]


def caption(found: Collection) -> str:
    """Return the totals in a sentence or two."""
    total, paper = found.total, found.total.paper
    sets = sum(item.paper.images > 0 for item in found.sets)
    text = (
        f"Here: {total.ours.images:,} images and {total.ours.masks:,} masks of {found.there()} sets on the training, "
        f"validation and test sides together.  Paper, Table 1: {paper.images:,} and {paper.masks:,} of {sets} sets."
    )
    if found.excluded:
        text += f"  Near duplicates of test images, on no side: {found.excluded:,} images."
    return text


def comma_separated(found: Collection) -> str:
    """Return the numbers: a line for every set, every application and the total."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["kind", "name", "application", "images", "masks", "paper_images", "paper_masks"])
    parts = (("application", found.applications), ("set", found.sets), ("total", (found.total,)))
    for kind, entries in parts:
        for item in entries:
            numbers = (item.ours.images, item.ours.masks, item.paper.images, item.paper.masks)
            writer.writerow([kind, item.name, item.application, *numbers])
    return text.getvalue()


def terminal(found: Collection) -> str:
    """Return the applications as aligned lines, and the totals."""
    rows: list[tuple[str, ...]] = [("", "images", "masks", "paper:", "images", "masks")]
    for item in (*found.applications, found.total):
        numbers = (item.ours.images, item.ours.masks, item.paper.images, item.paper.masks)
        shown = [f"{count:,}" if count else "-" for count in numbers]
        rows.append((item.name, *shown[:2], "", *shown[2:]))
    wide = max(len(row[0]) for row in rows)
    return "\n".join(
        f"{row[0]:<{wide}} {row[1]:>9} {row[2]:>9}   {row[3]:<6} {row[4]:>8} {row[5]:>9}".rstrip() for row in rows
    )


def _draw(axis: Axes, entries: Sequence[Entry], order: Sequence[str], title: str) -> None:
    """Draw a panel of dots: filled ones are ours, hollow ones the paper's; every second application has a band.

    Args:
        axis: of the panel.
        entries: lines from top to bottom.
        order: of the applications, so that bands are the same in both panels.
        title: of the panel.
    """
    for place, item in enumerate(entries):
        if order.index(item.application) % 2 == 0:
            axis.axhspan(place - 0.5, place + 0.5, color=BAND, linewidth=0, zorder=0)
        for name, colour, shape, offset in QUANTITIES:
            _draw_pair(axis, place + offset, name, item, colour, shape)
    for name, colour, shape, _ in QUANTITIES:
        # Empty ones, for the legend.
        for label, face in ((f"{name}, this collection", colour), (f"{name}, paper", "white")):
            axis.plot([], [], linestyle="", marker=shape, color=colour, markerfacecolor=face, markersize=4, label=label)
    axis.set_yticks(range(len(entries)), [_short(item.name) for item in entries], color=INK, fontsize=7)
    axis.set_ylim(len(entries) - 0.5, -0.5)
    axis.set_xscale("log")
    most = max((number for item in entries for number in (item.ours.images, item.ours.masks)), default=1)
    axis.set_xlim(0.7, max(400_000, 2 * most))
    ticks = [10**power for power in range(9) if 10**power < max(400_000, 2 * most)]
    axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axis.xaxis.set_minor_locator(_no_ticks())
    axis.set_title(title, fontsize=9, loc="left")
    axis.set_axisbelow(True)
    axis.grid(axis="x", color=GRID, linewidth=0.8)
    axis.tick_params(length=0)
    axis.tick_params(axis="x", labelsize=7)
    for side in ("top", "right", "bottom", "left"):
        axis.spines[side].set_visible(False)


def _draw_pair(axis: Axes, place: float, name: str, item: Entry, colour: str, shape: str) -> None:
    """Draw one number of ours and of the paper; nothing where it is 0, which has no place on a logarithmic axis."""

    def number(count: Count) -> int:
        return int(getattr(count, name))

    ours, paper = number(item.ours), number(item.paper)
    if ours and paper:
        axis.plot([ours, paper], [place, place], color=colour, linewidth=0.8, alpha=0.6)
    style: dict[str, Any] = {"linestyle": "", "marker": shape, "color": colour}
    if paper:
        axis.plot([paper], [place], markersize=4.4, markerfacecolor="white", markeredgewidth=0.8, **style)
    if ours:
        axis.plot([ours], [place], markersize=2.8, markeredgewidth=0, **style)


def _short(name: str, most: int = 27) -> str:
    """Return a name that fits beside a panel."""
    return name if len(name) <= most else f"{name[: most - 3]}..."


def _no_ticks() -> Locator:
    from matplotlib.ticker import NullLocator

    return NullLocator()
