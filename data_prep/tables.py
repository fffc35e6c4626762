"""Reading the CSV and XLSX tables that come with a dataset."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from zipfile import BadZipFile

from ultrasam.errors import DataError

Rows = dict[str, dict[str, str]]


def csv_rows(path: Path, columns: Sequence[str], *, delimiter: str = ",") -> Iterator[tuple[int, dict[str, str]]]:
    """Yield number of the line and cells by column, one row of a CSV file at a time.

    Args:
        path: UTF-8 file, with or without byte-order mark, with a header line.
        columns: columns that must be present.
        delimiter: between cells.

    Raises:
        DataError: file missing or not text, columns missing, or short rows.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True, delimiter=delimiter)
            header = list(reader.fieldnames or ())
            absent = [column for column in columns if column not in header]
            if absent:
                raise DataError(f"{path}: the columns {list(columns)} were expected, {absent} not among {header}")
            for row in reader:
                if any(row[column] is None for column in columns):
                    raise DataError(f"{path}: line {reader.line_num} is shorter than the header; "
                                    "the file may be cut off")
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: a readable CSV table was expected, found: {error}") from error


def read_csv(path: Path, columns: Sequence[str], *, key: str, delimiter: str = ",") -> Rows:
    """Return the rows of a CSV file by the value of one column, in the order of the file.

    Args:
        path: as for `csv_rows`.
        columns: columns that must be present.
        key: one of the columns; its values must be unique.
        delimiter: between cells.

    Raises:
        DataError: as `csv_rows`, or a key given twice.
    """
    table: Rows = {}
    for _, row in csv_rows(path, columns, delimiter=delimiter):
        _add(table, row, key, path)
    return table


def read_numbers(
    path: Path, keys: Sequence[str], columns: Sequence[str], *, without: frozenset[str] = frozenset()
) -> dict[tuple[str, ...], list[tuple[float, ...]]]:
    """Return the numbers of a CSV file whose keys repeat, such as the points of tracings, row by row.

    Args:
        path: as for `csv_rows`.
        keys: columns of text that tell which rows belong together.
        columns: columns of numbers, in the order wanted.
        without: texts in a key that mean that the row has no numbers; such rows are passed over.

    Returns:
        the numbers of every row, by the texts of the keys, in the order of the file.

    Raises:
        DataError: as `csv_rows`, or a cell that is not a number.
    """
    table: dict[tuple[str, ...], list[tuple[float, ...]]] = defaultdict(list)
    for line, row in csv_rows(path, (*keys, *columns)):
        found = tuple(row[key] for key in keys)
        if without.isdisjoint(found):
            cells = [row[column] for column in columns]
            try:
                table[found].append(tuple(float(cell) for cell in cells))
            except ValueError as error:
                raise DataError(f"{path}: line {line}: numbers were expected, found {cells}; "
                                "the table may be cut off") from error
    return dict(table)


def read_sheet(path: Path, columns: Sequence[str], *, key: str) -> Rows:
    """Return the rows of an XLSX sheet by the value of one column, in the order of the file.

    Args:
        path: the workbook; its first sheet with the columns in the first row is read.
        columns: columns that must be present; case and spaces around them do not matter.
        key: one of the columns; its values must be unique. Rows without one are passed over.

    Returns:
        text of the cells by column as named in ``columns``; empty cells give "", whole numbers no decimals.

    Raises:
        DataError: not a workbook, no such sheet, or a key given twice.
    """
    # Slow to import, and few sets have workbooks.
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = load_workbook(path, read_only=True, data_only=True)
        sheets = [list(sheet.iter_rows(values_only=True)) for sheet in book.worksheets]
        book.close()
    except (BadZipFile, InvalidFileException, OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: a readable XLSX workbook was expected, found: {error}; get it again") from error
    headers = [[_text(cell).lower() for cell in rows[0]] if rows else [] for rows in sheets]
    wanted = {column.lower() for column in columns}
    chosen = next((number for number, header in enumerate(headers) if wanted <= set(header)), None)
    if chosen is None:
        raise DataError(f"{path}: a sheet with the columns {list(columns)} was expected, found {headers[:3]}")
    places = {column: headers[chosen].index(column.lower()) for column in columns}
    table: Rows = {}
    for cells in sheets[chosen][1:]:
        row = {column: _text(cells[place]) for column, place in places.items()}
        if row[key]:
            _add(table, row, key, path)
    return table


def _add(table: Rows, row: dict[str, str], key: str, path: Path) -> None:
    """Add a row under its key; DataError when another one has it."""
    if row[key] in table:
        raise DataError(f"{path}: {key} {row[key]!r} stands in more than one line; it must be unique")
    table[row[key]] = row


def _text(cell: object) -> str:
    """Return a cell of a workbook as text."""
    if cell is None:
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()


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


def whole_number(text: str, *, where: str) -> int:
    """Return the whole number of a text such as ``"46"`` or ``"46.0"``; DataError names ``where``."""
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not number.is_integer():
        raise DataError(f"{where}: a whole number was expected, found {text!r}; use the original table")
    return int(number)
