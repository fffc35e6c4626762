"""TN3K: thyroid nodules, 2879 images for training and validation and 614 for test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.listing import find_pair, numbered, paired
from data_prep.mask_files import ThresholdMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from data_prep.thyroid_archive import ARCHIVE_ACCESS, ARCHIVE_NAMES
from ultrasam.datasets.coco_images import load_json
from ultrasam.errors import DataError

INFO = DatasetInfo(
    slug="tn3k",
    name="TN3K",
    home="https://github.com/haifangong/TRFE-Net-for-thyroid-nodule-segmentation",
    licence="not stated for the images (code MIT)",
    application="thyroid nodules",
    organ="thyroid",
    categories=("thyroid_nodule",),
    group_key="image (patients are not published; the authors kept one view per region)",
    official_split="614 test images, five folds of the others (tn3k-trainval-fold0.json to 4)",
    expected={"images": 3493},
    # Masks are JPEG: compression leaves specks of a few pixels, the smallest nodules have hundreds.
    rules=MaskRules(fill_holes=True, min_area=64),
    table1=(3493, 3821),
    view="thyroid",
    names=ARCHIVE_NAMES,
    access=ARCHIVE_ACCESS,
)

_PATHOLOGY = {"0": "benign", "1": "malignant"}


def records(root: Path) -> Iterator[Record]:
    """Yield one record per image of both parts; their numbers start from 0000 in each part."""
    for part in ("trainval", "test"):
        images, masks = find_pair(root, (f"{part}-image", f"{part}-mask"))
        labels = _labels(images.parent / f"label4{part}.csv")
        folds = _folds(images.parent) if part == "trainval" else {}
        for number, image, mask in paired(images, masks, numbered):
            key = f"{part}_{number:04d}"
            fold = {} if number not in folds else {"official_fold": folds[number]}
            yield Record(key, ImageFile(image), (ThresholdMask(mask, "thyroid_nodule"),), group=key,
                         label=labels.get(number), attributes={"official_split": part, **fold})


def _labels(table: Path) -> dict[int, str]:
    """Return benign or malignant by number; none where the download has no such table (``0000.jpg,1``, no header)."""
    if not table.is_file():
        return {}
    labels: dict[int, str] = {}
    for line in table.read_text(encoding="utf-8-sig").splitlines():
        if not line.strip():
            continue
        name, _, value = (cell.strip() for cell in line.partition(","))
        stem = Path(name).stem
        if not stem.isdigit() or value not in _PATHOLOGY:
            raise DataError(f"{table}: lines like '0000.jpg,1' with 0 for benign and 1 for malignant were expected, "
                            f"found {line!r}; use the original table")
        labels[int(stem)] = _PATHOLOGY[value]
    return labels


def _folds(folder: Path) -> dict[int, int]:
    """Return by number the fold that an image validates; empty where the download has no fold files."""
    folds: dict[int, int] = {}
    for fold in range(5):
        path = folder / f"tn3k-trainval-fold{fold}.json"
        for number in load_json(path).get("val", []) if path.is_file() else []:
            if folds.setdefault(number, fold) != fold:
                raise DataError(f"{path}: every image in the val list of one fold was expected, found {number!r} also "
                                f"in fold {folds[number]}; take all fold files from one download")
    return folds


CONVERTER = Converter(INFO, records)
