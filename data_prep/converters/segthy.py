"""SegThy: thyroid and neck vessels in tracked 3D ultrasound of healthy volunteers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import VolumeFrame, volume
from data_prep.mask_shapes import VolumeLabels
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from data_prep.thyroid_archive import find_pair
from ultrasam.errors import DataError
from ultrasam.io.volumes import suffix_of

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


def records(root: Path) -> Iterator[Record]:
    """Yield one record per annotated slice of the labelled volumes; other sweeps of the archive have no labels.

    Slices stay as they were swept, across the neck: along it a freehand sweep has no image of its own. A slice
    without a label lies beyond the annotated part, which does not make it a negative.
    """
    images, labels = find_pair(root, ("ground_truth_data/US", "US_thyroid_label"), ("US", "US_thyroid_label"))
    pictures = {name.removesuffix("_US"): path for name, path in _volumes(images).items()}
    drawings = _volumes(labels)
    for name in sorted({*pictures, *drawings}):
        subject = re.match(r"\d+", name)
        if subject is None:
            raise DataError(f"{images}: file names that begin with the number of a volunteer were expected, found "
                            f"{name!r}; use the original names")
        picture = pictures.get(name, images / f"{name}_US.nii")
        drawing = drawings.get(name, labels / f"{name}.nii")
        yield from _slices(name, subject.group(), picture, drawing)


def _slices(name: str, subject: str, picture: Path, drawing: Path) -> Iterator[Record]:
    """Yield the records of one sweep; a sweep whose labels cannot be read gives one record that fails."""
    try:
        found = volume(drawing, "file")
    except DataError:
        # The conversion of this record reads the file again, and names what is wrong with it.
        yield Record(name, VolumeFrame(picture, 0), (VolumeLabels(drawing, 0, _LABELS),), group=subject)
        return
    # Rows that count up to the front put the skin below the picture; half a turn puts it on top, with the
    # subject's right on the left.
    turned = found.directions[1] != "P"
    spacing = None if found.spacing is None else (found.spacing[1], found.spacing[2])
    for index, frame in enumerate(found.array):
        if frame.any():
            yield Record(f"{name}_{index:05d}", VolumeFrame(picture, index, turned=turned),
                         (VolumeLabels(drawing, index, _LABELS, turned=turned),),
                         group=subject, frame=index, spacing=spacing)


def _volumes(folder: Path) -> dict[str, Path]:
    """Return the NIfTI files of a folder by name without suffix; DataError for two of one name."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        suffix = suffix_of(path)
        if suffix not in (".nii", ".nii.gz") or path.name.startswith("."):
            continue
        name = path.name[:-len(suffix)]
        if name in found:
            raise DataError(f"{path}: one volume {name} was expected, found also {found[name].name}; keep one of them")
        found[name] = path
    return found


CONVERTER = Converter(INFO, records)
