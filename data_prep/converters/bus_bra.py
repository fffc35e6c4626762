"""BUS-BRA: breast lesions of 1064 patients, benign or malignant, with an official five-fold partition."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.mask_files import BinaryMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from data_prep.sources import find_one
from data_prep.tables import integers, read_csv
from ultrasam.errors import DataError

INFO = DatasetInfo(
    slug="bus_bra",
    name="BUS-BRA",
    home="https://zenodo.org/records/8231412",
    licence="CC BY 4.0, cite the paper",
    application="breast lesions",
    organ="breast",
    categories=("benign", "malignant"),
    group_key="patient (Case of bus_data.csv)",
    official_split="five folds (kFold of 5-fold-cv.csv)",
    test_folds=(1,),
    expected={"images": 1875, "masks": 1875, "groups": 1064},
    rules=MaskRules(split_components=False, fill_holes=True, crop_background=False),
    table1=(1875, 1875),
    view="breast",
    names=("*bus-bra*", "*busbra*", "*bus_bra*"),

)


def records(root: Path) -> Iterator[Record]:
    """Yield one record per line of bus_data.csv, whether or not its image is there."""
    table = find_one(root, "bus_data.csv")
    raw = table.parent
    fold_table = raw / "5-fold-cv.csv"
    folds = read_csv(fold_table, ("ID", "Pathology", "kFold"), key="ID")
    columns = ("ID", "Case", "Pathology", "Width", "Height", "BBOX")
    for name, row in read_csv(table, columns, key="ID").items():
        where = f"{table}: {name}"
        pathology = row["Pathology"]
        if pathology not in INFO.categories:
            raise DataError(f"{where}: Pathology benign or malignant was expected, found {pathology!r}")
        if name not in folds or folds[name]["Pathology"] != pathology:
            raise DataError(f"{where}: {fold_table.name} has no such ID with Pathology {pathology}; "
                            "take both tables from one download")
        (fold,) = integers(folds[name]["kFold"], 1, where=f"{fold_table}: {name}: kFold")
        (width,) = integers(row["Width"], 1, where=f"{where}: Width")
        (height,) = integers(row["Height"], 1, where=f"{where}: Height")
        # BBOX counts pixels from 1 and its width and height are last minus first pixel.
        x, y, across, down = integers(row["BBOX"], 4, where=f"{where}: BBOX")
        yield Record(
            key=name,
            image=ImageFile(raw / "Images" / f"{name}.png"),
            masks=(BinaryMask(raw / "Masks" / f"mask_{name.removeprefix('bus_')}.png", pathology),),
            group=row["Case"],
            fold=fold,
            label=pathology,
            attributes={"fold": fold},
            size=(height, width),
            box=(x - 1, y - 1, x + across, y + down),
        )


CONVERTER = Converter(INFO, records)
