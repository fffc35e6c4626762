"""A filled table as text, Markdown, CSV and LaTeX: the paper's numbers, ours, the difference, the interval."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ultrasam.io.files import write_atomic
from ultrasam.reproduce.fill import FAILED, FILLED, OPEN, UNSUPPORTED, Cell, Filled
from ultrasam.reproduce.layout import Row

_CSV_HEAD = (
    "table", "row", "labels", "group", "score", "paper", "ours", "difference", "low", "high", "status", "config",
    "weights", "data_set", "prompt", "checkpoint_sha256", "result_folder", "note",
)  # fmt: skip
_THEN = "Then, with public files in the same folder or as NAME=FILE"
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def write_table(filled: Filled, out: Path) -> list[Path]:
    """Write ``NAME.md``, ``NAME.csv`` and ``NAME.tex``, each whole or not at all; return the paths."""
    texts = {"md": markdown(filled), "csv": comma_separated(filled, out), "tex": latex(filled)}
    paths = []
    for suffix, text in texts.items():
        path = out / f"{filled.table.name}.{suffix}"
        write_atomic(path, text.encode())
        paths.append(path)
    return paths


def number(value: float | None, signed: bool = False) -> str:
    """Return a number of percent with one digit, or nothing."""
    if value is None:
        return ""
    # Adding 0 turns the -0.0 of a rounded difference into 0.0.
    return f"{round(value, 1) + 0.0:+.1f}" if signed else f"{value:.1f}"


def interval(cell: Cell) -> str:
    """Return the 95 % interval in words, or nothing."""
    return "" if cell.low is None or cell.high is None else f"{number(cell.low)} to {number(cell.high)}"


def counts(filled: Filled) -> str:
    """Return how many cells are filled, open, failed and unsupported, in a sentence."""
    parts = [f"{filled.count(FILLED)} of {len(filled.cells) - filled.count(UNSUPPORTED)} cells filled"]
    parts.append(f"{filled.count(OPEN)} open")
    if filled.count(FAILED):
        parts.append(f"{filled.count(FAILED)} failed")
    if filled.count(UNSUPPORTED):
        parts.append(f"{filled.count(UNSUPPORTED)} more cannot be filled by any model")
    return f"{filled.table.name}: {', '.join(parts)}"


def terminal(filled: Filled) -> str:
    """Return filled cells one a line, then what failed, what is open and what to do."""
    table = filled.table
    lines = [table.title]
    shown = [cell for cell in filled.cells if cell.status == FILLED]
    rows = [("", "paper", "ours", "diff.", "95 % interval")]
    for cell in shown:
        column = table.columns[cell.column]
        label = ", ".join(text for text in (*cell.row.labels, table.groups[column.group], column.title) if text)
        numbers = (number(cell.paper) or "-", number(cell.value), number(cell.difference, signed=True))
        rows.append((label, *numbers, interval(cell)))
    if shown:
        wide = max(len(row[0]) for row in rows)
        lines += [f"  {row[0]:<{wide}}  {row[1]:>6} {row[2]:>6} {row[3]:>6}   {row[4]}".rstrip() for row in rows]
    lines += [f"failed: {part}: {problem}" for part, problem in failures(filled)]
    for need, cells in filled.needs().items():
        lines.append(f"open, {cells_of(cells)}: {need.what}")
        lines += [f"    {command}" for command in need.commands]
    if filled.again:
        lines += [f"{_THEN}:", f"    {filled.again}"]
    return "\n".join(lines)


def failures(filled: Filled) -> list[tuple[str, str]]:
    """Return (row/group, sentence) of what failed, once each."""
    groups = filled.table.columns
    found = {
        (f"{cell.row.id}/{groups[cell.column].group}", cell.problem): None
        for cell in filled.cells
        if cell.status == FAILED
    }
    return list(found)


def cells_of(cells: Sequence[Cell]) -> str:
    """Return the number of cells and the ids of their rows."""
    rows = ", ".join(dict.fromkeys(cell.row.id for cell in cells))
    return f"{len(cells)} cell{'s' * (len(cells) > 1)} ({rows})"


def markdown(filled: Filled) -> str:
    """Return the table for GitHub, with what was tested and what is open below it."""
    table = filled.table
    heads = [*table.heads, *(f"{table.groups[column.group]} {column.title}".strip() for column in table.columns)]
    lines = [f"# {table.title}", "", "Ours (difference), 95 % interval, the paper's number.", ""]
    lines += [_line(heads), _line(["---"] * len(table.heads) + ["---:"] * len(table.columns))]
    for row, cells in _by_row(filled):
        lines.append(_line([*row.labels, *(_markdown_cell(cells.get(n)) for n in range(len(table.columns)))]))
    lines += ["", counts(filled).replace(f"{table.name}: ", "") + ".", *_tested(filled)]
    failed = failures(filled)
    if failed:
        lines += ["", "## Failed", "", *(f"* {part}: {problem}" for part, problem in failed)]
    needs = filled.needs()
    if needs:
        lines += ["", "## Open", ""]
    for need, waiting in needs.items():
        lines.append(f"* {cells_of(waiting)}: {need.what}")
        lines += [f"  `{command}`" for command in need.commands]
    if filled.again:
        lines += ["", f"{_THEN}: `{filled.again}`"]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _markdown_cell(cell: Cell | None) -> str:
    """Return up to three lines: ours with the difference, the interval, the paper's number."""
    if cell is None:
        return ""
    if cell.status == UNSUPPORTED:
        return "not supported"
    paper = "" if cell.paper is None else f"paper {number(cell.paper)}"
    if cell.status != FILLED:
        return "<br>".join(part for part in (cell.status, paper) if part)
    difference = "" if cell.difference is None else f" ({number(cell.difference, signed=True)})"
    return "<br>".join(part for part in (f"**{number(cell.value)}**{difference}", interval(cell), paper) if part)


def _by_row(filled: Filled) -> list[tuple[Row, dict[int, Cell]]]:
    """Return the chosen rows with their cells by column."""
    found: dict[str, tuple[Row, dict[int, Cell]]] = {}
    for cell in filled.cells:
        found.setdefault(cell.row.id, (cell.row, {}))[1][cell.column] = cell
    return list(found.values())


def _tested(filled: Filled) -> list[str]:
    """Return the table of the annotation files that were tested on, with every filter."""
    rows: dict[tuple[str, ...], None] = {}
    for record in filled.records.values():
        number_of = ((record.get("breakdown") or {}).get("overall") or {}).get("counts") or _logged_counts(record)
        shown = [str(number_of.get(key, "")) for key in ("objects", "images", "groups")]
        for entry in record.get("annotations", []):
            found = (str(entry.get("file")), str(entry.get("sha256"))[:12], str(entry.get("filters")), *shown)
            rows[found] = None
    if not rows:
        return []
    head = ["annotations", "SHA-256", "filters", "objects", "images", "patients or videos"]
    return ["", "## Tested on", "", _line(head), _line(["---"] * len(head)), *(_line(row) for row in rows)]


def _logged_counts(record: Mapping[str, Any]) -> dict[str, int]:
    """Return the numbers of objects and images that a test without prompts logged, as far as it did."""
    metrics = record["metrics"]
    names = {"objects": ("coco/objects", "classification/objects"), "images": ("coco/images",)}
    found = {key: [metrics[name] for name in among if name in metrics] for key, among in names.items()}
    return {key: int(values[0]) for key, values in found.items() if values}


def comma_separated(filled: Filled, out: Path) -> str:
    """Return every cell as a line, with full precision; paths start from ``out`` where they are in it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_HEAD)
    for cell in filled.cells:
        column = filled.table.columns[cell.column]
        source = cell.row.sources.get(column.group)
        record: Mapping[str, Any] = filled.records.get(cell.folder, {}) if cell.folder else {}
        notes = [cell.row.unsupported, cell.problem, *(need.what for need in cell.needs)]
        writer.writerow([
            filled.table.name, cell.row.id, ", ".join(cell.row.labels), column.group, column.title,
            *("" if value is None else repr(float(value))
              for value in (cell.paper, cell.value, cell.difference, cell.low, cell.high)),
            cell.status,
            *((source.config, source.weights, source.dataset, source.prompt) if source else ("",) * 4),
            (record.get("checkpoint") or {}).get("sha256", ""),
            _relative(cell.folder, out), "; ".join(note for note in notes if note),
        ])  # fmt: skip
    return text.getvalue()


def _relative(folder: Path | None, out: Path) -> str:
    if folder is None:
        return ""
    inside = folder.resolve().is_relative_to(out.resolve())
    return folder.resolve().relative_to(out.resolve()).as_posix() if inside else str(folder)


def latex(filled: Filled) -> str:
    """Return a ``tabular`` with booktabs: ours, its interval, and the paper's in brackets."""
    table = filled.table
    columns = "l" * len(table.heads) + "r" * len(table.columns)
    spans = [
        f"\\multicolumn{{{len(table.columns_of(group))}}}{{c}}{{{_escaped(title)}}}"
        for group, title in table.groups.items()
    ]
    lines = [
        f"% {table.title}: ours, 95 % interval, the paper's number in brackets. Needs booktabs.",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        " & ".join([""] * len(table.heads) + spans) + r" \\",
        " & ".join(_escaped(text) for text in (*table.heads, *(c.title for c in table.columns))) + r" \\",
        "\\midrule",
    ]
    for row, cells in _by_row(filled):
        texts = [_escaped(label) for label in row.labels]
        texts += [_latex_cell(cells.get(n)) for n in range(len(table.columns))]
        lines.append(" & ".join(texts) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _latex_cell(cell: Cell | None) -> str:
    if cell is None or cell.status == UNSUPPORTED:
        return "--"
    paper = "" if cell.paper is None else f"({number(cell.paper)})"
    if cell.status != FILLED:
        return paper or "--"
    spread = "" if cell.low is None else f"{{\\scriptsize [{number(cell.low)}, {number(cell.high)}]}}"
    return " ".join(part for part in (number(cell.value), spread, paper) if part)


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
