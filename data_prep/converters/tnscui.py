"""TN-SCUI 2020: thyroid nodules of 3644 patients, the labelled part of the challenge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.frames import ImageFile
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from data_prep.tables import read_csv
from data_prep.thyroid_archive import find_pair, paired
from ultrasam.errors import DataError
from ultrasam.io.images import read_mask

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


@dataclass(frozen=True)
class NoduleMask:
    """A mask of the release (0 and 255) or of its VOC repack (0 and 1, perhaps as a palette's numbers).

    Attributes:
        path: the mask file.
    """

    path: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        """The one file read."""
        return (self.path,)

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return the nodule as one bool height x width mask; DataError for any third value."""
        # The colours of a palette are not what the file means; for files without one nothing changes.
        values = read_mask(self.path, palette="index")
        if values.shape != (height, width):
            raise DataError(f"{self.path}: a mask of the image's {width} x {height} pixels was expected, found "
                            f"{values.shape[1]} x {values.shape[0]}; check that the files belong together")
        found = np.unique(values).tolist()
        if not {0, 1}.issuperset(found) and not {0, 255}.issuperset(found):
            raise DataError(f"{self.path}: the values 0 and 1, or 0 and 255, were expected, found {found[:8]}; "
                            "the file may be re-encoded, use the original")
        return [("thyroid_nodule", values > 0)]


def records(root: Path) -> Iterator[Record]:
    """Yield one record per image, from the release (image, mask, train.csv) or its VOC repack."""
    images, masks = find_pair(root, ("JPEGImages", "SegmentationClass"), ("image", "mask"))
    labels = _labels(images.parent / "train.csv")
    for number, image, mask in paired(images, masks):
        key = f"{number:04d}"
        yield Record(key, ImageFile(image), (NoduleMask(mask),), group=key, label=labels.get(number))


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
