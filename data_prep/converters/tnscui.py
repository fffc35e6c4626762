"""TN-SCUI 2020: thyroid nodules of 3644 patients, the labelled part of the challenge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.listing import find_pair, numbered, paired
from data_prep.mask_files import BinaryMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from data_prep.tables import read_csv
from ultrasam.errors import DataError

INFO = DatasetInfo(
    slug="tnscui",
    name="TN-SCUI 2020",
    home="https://tn-scui2020.grand-challenge.org",
    licence="not stated, challenge registration",
    application="thyroid nodules",
    organ="thyroid",
    categories=("thyroid_nodule",),
    group_key="patient (one image each)",
    expected={"images": 3644},
    rules=MaskRules(fill_holes=True),
    table1=(3644, 3659),
    view="thyroid",
    names=("*tnscui*", "*tn-scui*", "*tn_scui*"),
    access="The organisers of the challenge give the training images to those who register.",
)

_PATHOLOGY = {"0": "benign", "1": "malignant"}


def records(root: Path) -> Iterator[Record]:
    """Yield one record per image, from the release (image, mask, train.csv) or its VOC repack."""
    images, masks = find_pair(root, ("JPEGImages", "SegmentationClass"), ("image", "mask"))
    labels = _labels(images.parent / "train.csv")
    for number, image, mask in paired(images, masks, numbered):
        key = f"{number:04d}"
        # Masks of the repack may have colours for show; the numbers of the colours are what the files mean.
        nodule = BinaryMask(mask, "thyroid_nodule", palette="index")
        yield Record(key, ImageFile(image), (nodule,), group=key, label=labels.get(number))


def _labels(table: Path) -> dict[int, str]:
    """Return benign or malignant by number; the repack has no such table."""
    if not table.is_file():
        return {}
    labels: dict[int, str] = {}
    for name, row in read_csv(table, ("ID", "CATE"), key="ID").items():
        stem, value = Path(name).stem, row["CATE"].strip()
        if not stem.isdigit() or value not in _PATHOLOGY:
            raise DataError(f"{table}: {name}: a numbered image with CATE 0 or 1 was expected, found CATE {value!r}; "
                            "use the original table")
        labels[int(stem)] = _PATHOLOGY[value]
    return labels


CONVERTER = Converter(INFO, records)
