"""The composition as a table on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from data_prep.report.summary import SetRow, Summary
from data_prep.splits import SPLITS

HEADER = ("set", "application", "images", "paper", "+/-", "masks", "paper", "+/-", "groups", "train/val/test",
          "licence", "state")
_TEXT_COLUMNS = {0, 1, 10, 11}
_LICENCE_WIDTH = 24


def difference(ours: int, paper: int) -> str:
    """Return our number minus the paper's, with its sign; ``=`` when they are equal."""
    return "=" if ours == paper else f"{ours - paper:+,}"


def compared(ours: int | None, paper: int | None) -> tuple[str, str, str]:
    """Return our number, the paper's and the difference as text; ``-`` for what is not there."""
    return ("-" if ours is None else f"{ours:,}", "-" if paper is None else f"{paper:,}",
            "-" if ours is None or paper is None else difference(ours, paper))


def total_cells(summary: Summary, name: str) -> tuple[str, str, str]:
    """Return the ``images`` or ``masks`` of the converted sets, those of their rows in Table 1, and the difference.

    The difference is one of like with like: sets without a row in Table 1 are left out of it.
    """
    listed = [(row.count(name), row.paper[name == "masks"]) for row in summary.converted if row.counted and row.paper]
    if not listed:
        return f"{summary.total(name):,}", "-", "-"
    ours, paper = (sum(numbers) for numbers in zip(*listed, strict=True))
    return f"{summary.total(name):,}", f"{paper:,}", difference(ours, paper)


def table_rows(summary: Summary) -> Iterator[tuple[str, ...]]:
    """Yield the cells of header, sets and totals."""
    yield HEADER
    for row in summary.rows:
        yield _cells(row)
    done = [row for row in summary.converted if row.counted]
    yield ("converted", "1 set" if len(done) == 1 else f"{len(done)} sets",
           *total_cells(summary, "images"), *total_cells(summary, "masks"), f"{summary.total('groups'):,}",
           "/".join(f"{summary.split_total(split):,}" for split in SPLITS), "", "")
    every = [sum(row.paper[column] for row in summary.rows if row.paper) for column in (0, 1)]
    yield ("paper", "Table 1", "", f"{every[0]:,}", "", "", f"{every[1]:,}", "", "", "", "", "")


def table_text(summary: Summary) -> str:
    """Return the table in columns of equal width, numbers to the right, totals below a line."""
    rows = list(table_rows(summary))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = [_line(row, widths) for row in rows]
    rule = "-" * max(len(line) for line in lines)
    return "\n".join([lines[0], rule, *lines[1:-2], rule, *lines[-2:]])


def _cells(row: SetRow) -> tuple[str, ...]:
    """Return the cells of one set."""
    done = row.manifest is not None
    paper = row.paper or (None, None)
    return (
        row.slug, row.application,
        *compared(row.count("images") if done else None, paper[0]),
        *compared(row.count("masks") if done else None, paper[1]),
        f"{row.count('groups'):,}" if done else "-",
        "/".join(f"{row.split(split):,}" for split in SPLITS) if done else "-",
        shortened(row.licence, _LICENCE_WIDTH), row.state,
    )


def shortened(text: str, width: int) -> str:
    """Return the text, cut with three dots where it is longer."""
    return text if len(text) <= width else f"{text[:width - 3].rstrip()}..."


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    """Return one line of the table."""
    cells = [cell.ljust(width) if column in _TEXT_COLUMNS else cell.rjust(width)
             for column, (cell, width) in enumerate(zip(row, widths, strict=True))]
    return "  ".join(cells).rstrip()
