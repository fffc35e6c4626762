"""MMOTU, OTU_2d: ovarian tumours of seven kinds and normal ovaries; a test set of the paper."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.listing import find_pair
from data_prep.mask_files import PaintedMask
from data_prep.mmotu_archive import COLOURS, COPIES, listed, read_sides
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from ultrasam.errors import DataError

INFO = DatasetInfo(
    slug="mmotu_2d",
    name="MMOTU OTU_2d",
    home="https://github.com/cv516Buaa/MMOTU_DS2Net",
    licence="not stated for the images",
    application="ovarian",
    organ="ovary",
    categories=("chocolate_cyst", "serous_cystadenoma", "teratoma", "theca_cell_tumor", "simple_cyst",
                "normal_ovary", "mucinous_cystadenoma", "high_grade_serous"),
    group_key="image (patients are not published; the authors keep them on one side)",
    official_split="train.txt (1000 images) and val.txt (469), which is the test side here as in the paper",
    expected={"images": 1469},
    # 1469 masks have 1489 pieces: some are specks beside the lesion, which has thousands of pixels.
    rules=MaskRules(fill_holes=True, min_area=100, crop_background=False),
    table1=(1489, 1489),
    view="ovary",
    names=("*mmotu*", "*otu_2d*", "*otu-2d*"),
    access="Google Drive folder linked from the repository; take OTU_2d.",
    ignored=COPIES,
)


def records(root: Path) -> Iterator[Record]:
    """Yield one record per image of the official lists; the class of its lesion is that of the class lists."""
    images, masks = find_pair(root, ("OTU_2d/images", "annotations"))
    sides = read_sides(images.parent)
    classes = _classes(images.parent, sides)
    for stem, side in sides.items():
        category = INFO.categories[classes[stem]]
        yield Record(f"{int(stem):04d}", ImageFile(images / f"{stem}.JPG"),
                     (PaintedMask(masks / f"{stem}.PNG", category, COLOURS),), group=f"{int(stem):04d}",
                     split="test" if side == "val" else "train", label=category,
                     attributes={"official_split": side})


def _classes(folder: Path, sides: dict[str, str]) -> dict[str, int]:
    """Return the class 0 to 7 by image number; DataError unless every image of the lists has exactly one."""
    classes: dict[str, int] = {}
    for side in ("train", "val"):
        path = folder / f"{side}_cls.txt"
        for stem, *value in listed(path):
            if len(value) != 1 or value[0] not in "01234567" or stem in classes or sides.get(stem) != side:
                raise DataError(f"{path}: lines like '1.JPG  0' with a class from 0 to 7, for the images of {side}.txt "
                                f"and once each, were expected, found {stem} {' '.join(value)}; use the original lists")
            classes[stem] = int(value[0])
    absent = [stem for stem in sides if stem not in classes]
    if absent:
        raise DataError(f"{folder}: a class of every image was expected in train_cls.txt and val_cls.txt, found none "
                        f"of {len(absent)} (first: {absent[:5]}); use the original lists")
    return classes


CONVERTER = Converter(INFO, records)
