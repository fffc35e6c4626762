"""BUS (Dataset B, UDIAT): breast lesions; the class of each image is in a spreadsheet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.listing import find_optional, match_files
from data_prep.mask_files import CheckedMask, ThresholdMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from data_prep.tables import integers, read_sheet
from ultrasam.errors import DataError

INFO = DatasetInfo(
    slug="bus_dataset_b",
    name="BUS (Dataset B, UDIAT)",
    home="https://helward.mmu.ac.uk/STAFF/M.Yap/dataset.php",
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
    names=("bus", "bus.*", "*dataset?b", "*dataset?b.*", "*datasetb", "*datasetb.*", "*udiat*"),
    access="On request to the authors, who send a licence agreement to be signed.",
)
_TABLE = "DatasetB.xlsx"
_CLASSES = ("benign", "malignant")


def _classes(root: Path) -> dict[int, str]:
    """Return the class by image number; empty when the spreadsheet is not there."""
    table = find_optional(root, _TABLE)
    if table is None:
        return {}
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
    files = match_files(root, r"(original|gt)/(\d+)\.png", "original/000001.png")
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
