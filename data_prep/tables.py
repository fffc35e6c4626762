"""Reading the CSV tables that come with a dataset."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from ultrasam.errors import DataError


def read_csv(path: Path, columns: Sequence[str], *, key: str) -> dict[str, dict[str, str]]:
    """Return the rows of a CSV file by the value of one column, in the order of the file.

    Args:
        path: UTF-8 file, with or without byte-order mark, with a header line.
        columns: columns that must be present.
        key: one of the columns; its values must be unique.

    Raises:
        DataError: file missing or not text, columns missing, short rows, or a key given twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            header = list(reader.fieldnames or ())
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: a readable CSV table was expected, found: {error}") from error
    absent = [column for column in columns if column not in header]
    if absent:
        raise DataError(f"{path}: the columns {list(columns)} were expected, {absent} not among {header}")
    table: dict[str, dict[str, str]] = {}
    for number, row in enumerate(rows, start=2):
        if any(row[column] is None for column in columns):
            raise DataError(f"{path}: line {number} is shorter than the header; the file may be cut off")
        if row[key] in table:
            raise DataError(f"{path}: {key} {row[key]!r} stands in more than one line; it must be unique")
        table[row[key]] = row
    return table


def integers(text: str, count: int, *, where: str) -> list[int]:
    """Return the ``count`` integers of a text such as ``"91"`` or ``"[91,24,103,79]"``.

    Raises:
        DataError: another number of values, or one that is not an integer; names ``where``.
    """
    parts = text.strip().strip("[]").split(",")
    try:
        values = [int(part) for part in parts]
    except ValueError:
        values = []
    if len(values) != count:
        raise DataError(f"{where}: {count} integer(s) were expected, found {text!r}; use the original table")
    return values
