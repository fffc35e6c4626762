"""BUS (Dataset B, UDIAT): breast lesions; the class of each image is in a spreadsheet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from zipfile import BadZipFile

from openpyxl import load_workbook
from openpyxl.utils.exceptions import InvalidFileException

from data_prep.converters.busi import CheckedMask, find_files
from data_prep.frames import ImageFile
from data_prep.mask_files import ThresholdMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from data_prep.sources import find_one
from data_prep.tables import integers
from ultrasam.errors import DataError

INFO = DatasetInfo(
    slug="bus_dataset_b",
    name="BUS (Dataset B, UDIAT)",
    home="http://www2.docm.mmu.ac.uk/STAFF/M.Yap/dataset.php",
    licence="research only, licence agreement",
    application="breast lesions",
    organ="breast",
    categories=("breast_lesion",),
    group_key="image (patients are not published)",
    expected={"images": 163},
    # Thresholding leaves specks at soft borders.
    rules=MaskRules(fill_holes=True, min_area=20),
    table1=(164, 164),
    view="breast",
    names=("bus", "bus.*", "*dataset_b", "*dataset_b.*", "*datasetb", "*datasetb.zip", "*udiat*"),
    access="On request to the authors, who send a licence agreement to be signed.",
)
_TABLE = "DatasetB.xlsx"
_CLASSES = ("benign", "malignant")


def read_sheet(path: Path, columns: Sequence[str], *, key: str) -> dict[str, dict[str, str]]:
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
    header = headers[chosen]
    table: dict[str, dict[str, str]] = {}
    for cells in sheets[chosen][1:]:
        row = {column: _text(cells[header.index(column.lower())]) for column in columns}
        if not row[key]:
            continue
        if row[key] in table:
            raise DataError(f"{path}: {key} {row[key]!r} stands in more than one line; it must be unique")
        table[row[key]] = row
    return table


def _text(cell: object) -> str:
    """Return a cell as text."""
    if cell is None:
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()


def _classes(root: Path) -> dict[int, str]:
    """Return the class by image number; empty when the spreadsheet is not there."""
    if not any(root.rglob(_TABLE)):
        return {}
    table = find_one(root, _TABLE)
    classes = {}
    for image, row in read_sheet(table, ("Image", "Type"), key="Image").items():
        (number,) = integers(image, 1, where=f"{table}: Image")
        classes[number] = row["Type"].lower()
        if classes[number] not in _CLASSES:
            raise DataError(f"{table}: {image}: Type Benign or Malignant was expected, found {row['Type']!r}")
    return classes


def records(root: Path) -> Iterator[Record]:
    """Yield one record per image or mask number; without the spreadsheet they have no class."""
    images: dict[str, dict[str, Path]] = defaultdict(dict)
    files = find_files(root, r"(original|gt)/(\d+)\.png", "original/000001.png")
    for (part, name), path in files.items():
        images[name][part] = path
    base = next(iter(files.values())).parent.parent
    classes = _classes(root)
    for name in sorted({*images, *(f"{number:06d}" for number in classes)}):
        parts = images[name]
        if classes and int(name) not in classes:
            raise DataError(f"{base}: {_TABLE} has no line for the image {name}; take both from one download")
        label = classes.get(int(name))
        mask = ThresholdMask(parts.get("gt", base / "GT" / f"{name}.png"), "breast_lesion")
        yield Record(
            key=name,
            image=ImageFile(parts.get("original", base / "original" / f"{name}.png")),
            masks=(CheckedMask(mask, label or "of a lesion"),),
            group=name,
            label=label,
        )


CONVERTER = Converter(INFO, records)
