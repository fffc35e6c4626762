"""Figure 4: a score against the share of the application's images in training, a panel for each task."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ultrasam.errors import DataError
from ultrasam.reproduce.canvas import COLOURS, GRID, MUTED, figure, save
from ultrasam.reproduce.fill import FILLED, Cell, Filled
from ultrasam.reproduce.paper import DATASETS
from ultrasam.reproduce.tables import TASKS
from ultrasam.reproduce.weights import SHARES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("task", "data_set", "share", "score", "low", "high")


@dataclass(frozen=True)
class Point:
    """One number of a curve, in percent; ``low`` and ``high`` may be unknown."""

    score: float
    low: float | None = None
    high: float | None = None


def read_points(path: Path) -> dict[tuple[str, str], Point]:
    """Read numbers from a CSV with the columns task, data_set, share, score, and optionally low and high.

    Tasks are point, box, instance and classification; shares 0, 10, 30, 50 and 100; scores are percent.

    Returns:
        point by (``TASK/DATA_SET``, share).

    Raises:
        DataError: the file cannot be read, or a line has something else.
    """
    found: dict[tuple[str, str], Point] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            absent = [name for name in COLUMNS[:4] if name not in (reader.fieldnames or ())]
            if absent:
                raise DataError(f"{path}: the columns {', '.join(COLUMNS[:4])} were expected, {absent[0]} is missing")
            for line in reader:
                key, point = _point(line, f"{path}, line {reader.line_num}")
                if key in found:
                    raise DataError(f"{path}, line {reader.line_num}: {'/'.join(key)} is there twice; keep one")
                found[key] = point
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}); give a CSV file with {', '.join(COLUMNS)}") from error
    return found


def _point(line: dict[str, str], where: str) -> tuple[tuple[str, str], Point]:
    """Return key and numbers of a line."""
    task, dataset, share = ((line[name] or "").strip() for name in COLUMNS[:3])
    share = share.removesuffix("%").strip()
    if task not in TASKS or dataset not in DATASETS or share not in map(str, SHARES):
        raise DataError(
            f"{where}: a task of {', '.join(TASKS)}, a data set of {', '.join(DATASETS)} and a share of "
            f"{', '.join(map(str, SHARES))} were expected, found {task!r}, {dataset!r}, {share!r}"
        )
    try:
        numbers = [float(line[name]) if line.get(name) else None for name in COLUMNS[3:]]
    except ValueError:
        numbers = [None]
    if numbers[0] is None or not all(value is None or 0 <= value <= 100 for value in numbers):
        raise DataError(f"{where}: numbers from 0 to 100 (percent) were expected, found {line['score']!r}")
    return (f"{task}/{dataset}", share), Point(numbers[0], numbers[1], numbers[2])


def with_points(filled: Filled, points: dict[tuple[str, str], Point]) -> Filled:
    """Return the filled table with numbers of a file in the place of its cells.

    Raises:
        DataError: a number for a cell that was not chosen.
    """
    columns = filled.table.columns
    places = {(cell.row.id, columns[cell.column].group): number for number, cell in enumerate(filled.cells)}
    cells = list(filled.cells)
    for key, point in points.items():
        if key not in places:
            raise DataError(f"the CSV has {'/'.join(key)}, which --only leaves out; choose it, or remove the line")
        cells[places[key]] = replace(
            cells[places[key]], status=FILLED, value=point.score, low=point.low, high=point.high, needs=(), problem="",
            folder=None,
        )  # fmt: skip
    return replace(filled, cells=cells)


def draw_figure4(filled: Filled, out: Path) -> list[Path]:
    """Write ``figure4.png`` and ``figure4.svg``: tasks with any number of ours; nothing where there is none.

    Lines with intervals are ours; hollow marks are the paper's, where it prints a number.
    """
    tasks = [task for task in TASKS if any(cell.value is not None for cell in _cells(filled, task))]
    if not tasks:
        return []
    with figure(3.3 * len(tasks) + 0.2, 3.5) as drawn:
        axes = drawn.subplots(1, len(tasks), squeeze=False)[0]
        for place, (axis, task) in enumerate(zip(axes, tasks, strict=True)):
            _draw_task(axis, task, _cells(filled, task))
            if not place:
                axis.legend(frameon=False, loc="best", handlelength=1.4)
        drawn.supxlabel("share of the application's images in training, %", fontsize=8, color=MUTED)
        drawn.tight_layout()
        return save(drawn, out, "figure4")


def _cells(filled: Filled, task: str) -> list[Cell]:
    return [cell for cell in filled.cells if cell.row.id.split("/")[0] == task]


def _draw_task(axis: Axes, task: str, cells: Sequence[Cell]) -> None:
    """Draw one panel."""
    title, score, _ = TASKS[task]
    for colour, slug in zip(COLOURS, DATASETS, strict=False):
        mine = [cell for cell in cells if cell.row.id == f"{task}/{slug}"]
        ours = [(SHARES[cell.column], cell.value, cell.low, cell.high) for cell in mine if cell.value is not None]
        if ours:
            x, y, low, high = (
                [math.nan if number is None else float(number) for number in numbers]
                for numbers in zip(*ours, strict=True)
            )
            axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            axis.plot(x, y, color=colour, marker="o", markersize=3.5, linewidth=1.6, label=DATASETS[slug])
        paper = [(SHARES[cell.column], cell.paper) for cell in mine if cell.paper is not None]
        if ours and paper:
            x, y = ([float(number) for number in numbers] for numbers in zip(*paper, strict=True))
            axis.plot(x, y, linestyle="", marker="D", markersize=5, markerfacecolor="none", color=colour)
    axis.plot([], [], linestyle="", marker="D", markersize=5, markerfacecolor="none", color=MUTED, label="paper")
    axis.set_title(title, fontsize=9)
    axis.set_ylabel(f"{score}, %")
    axis.set_xticks(SHARES)
    axis.set_xlim(-4, 104)
    axis.set_axisbelow(True)
    axis.grid(axis="y", color=GRID, linewidth=0.8)
    for name in ("top", "right"):
        axis.spines[name].set_visible(False)
