"""BrEaST (Breast-Lesions-USG): one breast scan per patient, with tumours and other abnormal areas."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.listing import find_optional, match_files
from data_prep.mask_files import NORMAL, CheckedMask, ThresholdMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from data_prep.tables import read_sheet
from ultrasam.errors import DataError

INFO = DatasetInfo(
    slug="breast_lesions_usg",
    name="BrEaST (Breast-Lesions-USG)",
    home="https://www.cancerimagingarchive.net/collection/breast-lesions-usg/",
    licence="CC BY 4.0, TCIA data usage policy",
    application="breast lesions",
    organ="breast",
    categories=("breast_lesion", "other_abnormality"),
    group_key="patient (one image each)",
    expected={"images": 256, "groups": 256},
    # The masks are hand-drawn; a component of a few pixels is a slip of the pen.
    rules=MaskRules(fill_holes=True, min_area=20),
    table1=(252, 266),
    view="breast",
    names=("*breast-lesions*images_and_masks*", "breast-lesions-usg", "breast-lesions_usg", "breast_lesions_usg",
           "breast_lesions_usg.zip"),
    access="The images are a ZIP and the clinical table an XLSX: put both into one folder, the table gives the "
           "classes and pixel sizes.",
)
_TABLE = "*clinical-data*.xlsx"
_COLUMNS = ("Image_filename", "Mask_tumor_filename", "Mask_other_filename", "Pixel_size", "Classification")
_LABELS = ("benign", "malignant", NORMAL)
# What the table calls normal; needed where only the images are there, to tell a normal case from a lost mask.
_NORMAL_CASES = {"case045", "case061", "case209", "case213"}
_CATEGORIES = {"_tumor": "breast_lesion", "_other": "other_abnormality"}
# Breast probes have pixels of 0.05 to 0.1 mm.
_BELIEVABLE_MM = (0.02, 0.3)


def _spacing(text: str, where: str) -> tuple[float, float] | None:
    """Return millimetres per pixel of a ``Pixel_size`` in centimetres; None without one or one beyond belief."""
    if not text:
        return None
    try:
        size = 10 * float(text)
    except ValueError as error:
        raise DataError(f"{where}: a Pixel_size in centimetres was expected, found {text!r}") from error
    return (size, size) if _BELIEVABLE_MM[0] <= size <= _BELIEVABLE_MM[1] else None


def _add_listed(parts: dict[str, Path], folder: Path, key: str, row: Mapping[str, str]) -> None:
    """Add the files that the table lists for a case and that are not there, so that they are reported."""
    for name in (row["Mask_tumor_filename"], *row["Mask_other_filename"].split("&")):
        stem = Path(name.strip()).stem.lower()
        if stem:
            parts.setdefault(stem.removeprefix(key), folder / name.strip())


def records(root: Path) -> Iterator[Record]:
    """Yield one record per case; without the table they have no class, but for the normal ones."""
    cases: dict[str, dict[str, Path]] = defaultdict(dict)
    files = match_files(root, r"(case\d+)((?:_tumor|_other\d*)?)\.png", "case001.png")
    for (key, part), path in files.items():
        cases[key][part] = path
    folder = next(iter(files.values())).parent
    table: dict[str, dict[str, str]] = {}
    book = find_optional(root, _TABLE)
    if book is not None:
        table = {Path(name).stem.lower(): row for name, row in read_sheet(book, _COLUMNS, key="Image_filename").items()}
    for key in sorted({*cases, *table}):
        yield _record(key, cases[key], folder, table.get(key), known=bool(table))


def _record(key: str, parts: dict[str, Path], folder: Path, row: dict[str, str] | None, *, known: bool) -> Record:
    """Return the record of one case.

    Args:
        key: ``case`` and number.
        parts: files by what follows the key in their name; the image under "".
        folder: of all files.
        row: its line of the table.
        known: there is a table.
    """
    label, spacing = NORMAL if key in _NORMAL_CASES else None, None
    if row is not None:
        label, where = row["Classification"].lower(), f"{folder}: clinical table: {key}"
        if label not in _LABELS:
            raise DataError(f"{where}: Classification {', '.join(_LABELS)} was expected, found {label!r}")
        spacing = _spacing(row["Pixel_size"], where)
        _add_listed(parts, folder, key, row)
    elif known:
        raise DataError(f"{folder}: the clinical table has no line for {key}; take both from one download")
    image = parts.pop("", folder / f"{key}.png")
    if label != NORMAL:
        parts.setdefault("_tumor", folder / f"{key}_tumor.png")
    elif "_tumor" in parts:
        raise DataError(f"{parts['_tumor']}: no tumour mask was expected because {key} is normal; "
                        "take images and table from one download")
    masks = []
    for part in sorted(parts, key=lambda part: (part != "_tumor", len(part), part)):
        category = next((name for start, name in _CATEGORIES.items() if part.startswith(start)), None)
        if category is None:
            raise DataError(f"{folder}: {key}: masks called {key}_tumor or {key}_other were expected, the table lists "
                            f"{parts[part].name}")
        # As the authors read them: whatever is not zero.
        masks.append(CheckedMask(ThresholdMask(parts[part], category, threshold=0), "of a lesion"))
    return Record(key=key, image=ImageFile(image), masks=tuple(masks), group=key, spacing=spacing, label=label)


CONVERTER = Converter(INFO, records)
