"""BUS-UCLM: frames of 38 breast scans; masks are green for benign and red for malignant lesions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.listing import find_optional, match_files
from data_prep.mask_files import NORMAL, CheckedMask, ColourMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from data_prep.tables import read_csv
from ultrasam.errors import DataError

INFO = DatasetInfo(
    slug="bus_uclm",
    name="BUS-UCLM",
    home="https://data.mendeley.com/datasets/7fvgj4jsp7",
    licence="CC BY 4.0 (version 3; earlier versions CC BY-NC)",
    application="breast lesions",
    organ="breast",
    categories=("benign_breast_lesion", "malignant_breast_lesion"),
    group_key="patient (the four letters before the number)",
    official_split="the test patients of the authors' script: ANFO, COPE, CRCI, ELCO, FLKA",
    expected={"images": 683, "groups": 38},
    # Pixels of other shades at the borders leave specks.
    rules=MaskRules(fill_holes=True, min_area=20),
    table1=(264, 281),
    view="breast",
    names=("*bus-uclm*", "*bus_uclm*", "*bus_ucml*", "*7fvgj4jsp7*"),
)
_TABLE = "INFO.csv"
_TEST_PATIENTS = {"ANFO", "COPE", "CRCI", "ELCO", "FLKA"}
_COLOURS = {"benign_breast_lesion": (0, 255, 0), "malignant_breast_lesion": (255, 0, 0)}
# Reaches every darker shade of the two colours: a pixel is the nearer one of colour and black.
_TOLERANCE = 127


def _classes(root: Path) -> dict[str, str]:
    """Return the class by lower-case file name; empty when the table is not there."""
    table = find_optional(root, _TABLE)
    if table is None:
        return {}
    classes: dict[str, str] = {}
    for name, row in read_csv(table, ("Image", "Label"), key="Image", delimiter=";").items():
        classes[name.lower()] = row["Label"].lower()
        if classes[name.lower()] not in ("benign", "malignant", NORMAL):
            raise DataError(f"{table}: {name}: a Label Benign, Malignant or Normal was expected, found "
                            f"{row['Label']!r}")
    return classes


def records(root: Path) -> Iterator[Record]:
    """Yield one record per frame; those of normal tissue have black masks and stay, as true negatives."""
    images: dict[str, dict[str, Path]] = defaultdict(dict)
    files = match_files(root, r"(images|masks)/([a-z]{4}_\d+)\.png", "images/ALWI_000.png")
    for (part, stem), path in files.items():
        images[stem.upper()][part] = path
    base = next(iter(files.values())).parent.parent
    classes = _classes(root)
    for key in sorted({*images, *(Path(name).stem.upper() for name in classes)}):
        parts, name = images[key], f"{key}.png"
        if classes and name.lower() not in classes:
            raise DataError(f"{base}: {_TABLE} has no line for the image {name}; take both from one download")
        label = classes.get(name.lower())
        mask = ColourMask(parts.get("masks", base / "masks" / name), _COLOURS, tolerance=_TOLERANCE, strays=0.001)
        patient = key[:4]
        yield Record(
            key=key,
            image=ImageFile(parts.get("images", base / "images" / name)),
            masks=(mask if label is None else CheckedMask(mask, label),),
            group=patient,
            label=label,
            attributes={"official_split": "test" if patient in _TEST_PATIENTS else "train"},
        )


CONVERTER = Converter(INFO, records)
