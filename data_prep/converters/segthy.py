"""SegThy: thyroid and neck vessels in tracked 3D ultrasound of healthy volunteers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import Flips, VolumeFrame, label_volume, labelled_frames, pixel_spacing
from data_prep.listing import by_stem, find_pair
from data_prep.mask_shapes import VolumeLabels
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from ultrasam.errors import DataError
from ultrasam.io.volumes import Volume

INFO = DatasetInfo(
    slug="segthy",
    name="SegThy",
    home="https://www.cs.cit.tum.de/camp/publications/segthy-dataset/",
    licence="not stated (a mirror says CC BY 4.0)",
    application="thyroid",
    organ="thyroid",
    categories=("thyroid", "carotid_artery", "jugular_vein"),
    group_key="volunteer (leading number of the file name; all sweeps of both sides together)",
    rules=MaskRules(),
    table1=(12737, 22928),
    view="neck, transverse",
    names=("*segthy*", "us_data*", "*us_volunteer*"),
    access="US_data.zip (18.6 GB) on the page of the data set.",
    unsure="label values 1 thyroid, 2 carotid artery and 3 jugular vein, and which side of a volume is the skin",
)

_LABELS = {1: "thyroid", 2: "carotid_artery", 3: "jugular_vein"}
_SUFFIXES = (".nii", ".nii.gz")


def records(root: Path) -> Iterator[Record]:
    """Yield one record per annotated slice of the labelled volumes; other sweeps of the archive have no labels.

    Slices stay as they were swept, across the neck: along it a freehand sweep has no image of its own. A slice
    without a label lies beyond the annotated part, which does not make it a negative.
    """
    images, labels = find_pair(root, ("ground_truth_data/US", "US_thyroid_label"), ("US", "US_thyroid_label"))
    pictures = {name.removesuffix("_US"): path for name, path in by_stem(images, _SUFFIXES).items()}
    drawings = by_stem(labels, _SUFFIXES)
    for name in sorted({*pictures, *drawings}):
        subject = re.match(r"\d+", name)
        if subject is None:
            raise DataError(f"{images}: file names that begin with the number of a volunteer were expected, found "
                            f"{name!r}; use the original names")
        picture = pictures.get(name, images / f"{name}_US.nii")
        drawing = drawings.get(name, labels / f"{name}.nii")
        found = label_volume(drawing)
        flips = _flips(found)
        for index in labelled_frames(found):
            yield Record(f"{name}_{index:05d}", VolumeFrame(picture, index, flips=flips),
                         (VolumeLabels(drawing, index, _LABELS, flips=flips),),
                         group=subject.group(), frame=index, spacing=pixel_spacing(found))


def _flips(found: Volume | None) -> Flips:
    """Return what puts the skin on top: half a turn unless rows count up to the back, with the subject's right left."""
    turned = found is not None and found.directions[1] != "P"
    return turned, turned


CONVERTER = Converter(INFO, records)
