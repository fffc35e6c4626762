"""HC18: heads of fetuses with the ellipse of the head circumference; several images of one fetus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.listing import files_below
from data_prep.mask_files import OutlineMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from data_prep.sources import find_one
from data_prep.tables import read_csv
from ultrasam.errors import DataError

INFO = DatasetInfo(
    slug="hc18",
    name="HC18",
    home="https://zenodo.org/records/1327317",
    licence="CC BY 4.0",
    application="fetal head",
    organ="fetal head",
    view="transverse",
    categories=("fetal_head",),
    group_key="fetus (first three digits of the file name)",
    official_split="train and test; the test part has no annotations and is not used",
    expected={"images": 999, "masks": 999, "groups": 806},
    rules=MaskRules(split_components=False, fill_holes=True),
    table1=(999, 999),
    names=("*hc18*", "*1327317*", "*1322001*"),
)
_TABLE = "training_set_pixel_size_and_HC.csv"
_FILE, _PIXEL, _CIRCUMFERENCE = "filename", "pixel size(mm)", "head circumference (mm)"


def records(root: Path) -> Iterator[Record]:
    """Yield one record per line of the training table, whether or not its image is there."""
    table = find_one(root, _TABLE)
    folder = _training_folder(root, table)
    for name, row in read_csv(table, (_FILE, _PIXEL, _CIRCUMFERENCE), key=_FILE).items():
        stem = Path(name).stem
        if not stem[:3].isdecimal() or stem[3:4] != "_":
            raise DataError(f"{table}: a file name that starts with three digits was expected, found {name!r}")
        try:
            pixel, circumference = float(row[_PIXEL]), float(row[_CIRCUMFERENCE])
        except ValueError as error:
            raise DataError(f"{table}: {name}: numbers were expected, found {row[_PIXEL]!r} and "
                            f"{row[_CIRCUMFERENCE]!r}") from error
        yield Record(
            key=stem,
            image=ImageFile(folder / name),
            # The outline is one ellipse; a few leave the image and are closed by the ellipse that fits them.
            masks=(OutlineMask(folder / f"{stem}_Annotation.png", "fetal_head"),),
            group=stem[:3],
            spacing=(pixel, pixel),
            attributes={"head_circumference_mm": circumference},
        )


def _training_folder(root: Path, table: Path) -> Path:
    """Return the folder of the annotations: the test images have the names of training images."""
    folders = sorted({path.parent for path in files_below(root, "*_HC_Annotation.png")})
    if len(folders) > 1:
        listed = " and ".join(str(folder) for folder in folders)
        raise DataError(f"{root}: one folder of annotations was expected, found {listed}; name one of them")
    return folders[0] if folders else table.with_name("training_set")


CONVERTER = Converter(INFO, records)
