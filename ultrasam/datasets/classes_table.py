"""CSV tables of images, groups from file names, and parts of a data set that never divide a group."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ultrasam.errors import ConfigError, DataError
from ultrasam.io.files import read_bytes

PARTS = ("all", "train", "val", "test")


@dataclass(frozen=True)
class TableRow:
    """One line of a table.

    Attributes:
        line: its number in the file, from 1.
        cells: text by column.
    """

    line: int
    cells: Mapping[str, str]


def read_table(path: str | Path, columns: Sequence[str]) -> list[TableRow]:
    """Read a CSV file (UTF-8, commas or semicolons, names in the first line).

    Args:
        path: the file.
        columns: that must be there.

    Raises:
        DataError: it cannot be read, lacks a column, a line has another number of cells, or there are no lines.
    """
    path = Path(path)
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text ({error}); save the table as CSV in UTF-8") from error
    first = text.partition("\n")[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        names = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = names
        absent = [name for name in columns if name not in names]
        if absent:
            raise DataError(f"{path} has the columns {names}, but {absent[0]!r} is needed; give the column's name")
        rows = []
        for cells in reader:
            if None in cells or None in cells.values():
                raise DataError(f"{path}, line {reader.line_num}: {len(names)} cells were expected; correct the line")
            rows.append(TableRow(reader.line_num, {name: cell.strip() for name, cell in cells.items()}))
    except csv.Error as error:
        raise DataError(f"{path} is no CSV table ({error}); correct it") from error
    if not rows:
        raise DataError(f"{path} has no lines below its names; nothing can be read from it")
    return rows


def needed_cell(row: TableRow, column: str, path: Path) -> str:
    """Return a cell that must not be empty.

    Raises:
        DataError: names file, line and column.
    """
    if not row.cells[column]:
        raise DataError(f"{path}, line {row.line}: {column!r} is empty; fill it in or delete the line")
    return row.cells[column]


def group_of(name: str, pattern: str | None) -> str:
    """Return the patient or video that a file name tells: the first group of a regular expression, or the name itself.

    Raises:
        ConfigError: the expression is wrong.
        DataError: it does not match.
    """
    if pattern is None:
        return Path(name).stem
    try:
        found = re.search(pattern, name)
        group = found.group(1) if found else None
    except (re.error, IndexError) as error:
        raise ConfigError(f"group_pattern {pattern!r} must be a regular expression with one group: {error}") from error
    if group is None:
        raise DataError(f"{name} does not match group_pattern {pattern!r}; correct the expression or the name")
    return group


def part_of(group: str, test_share: float, val_share: float, seed: int = 0) -> str:
    """Return "train", "val" or "test" for a group, from a hash of its name alone.

    A group stays where it is when others come or go, on every machine. The shares hold on average.

    Args:
        group: patient or video.
        test_share: share of the groups for testing.
        val_share: share for validation.
        seed: another number gives another division.
    """
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < test_share:
        return "test"
    return "val" if place < test_share + val_share else "train"


def check_part(part: str, test_share: float, val_share: float) -> None:
    """Refuse a part that does not exist and shares that leave no training data.

    Raises:
        ConfigError: names the value.
    """
    if part not in PARTS:
        raise ConfigError(f"part must be one of {', '.join(map(repr, PARTS))}, got {part!r}")
    if min(test_share, val_share) < 0 or test_share + val_share >= 1:
        raise ConfigError(
            f"test_share and val_share must not be negative and leave data to train, got {test_share} and {val_share}"
        )
