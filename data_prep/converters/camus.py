"""CAMUS: apical two- and four-chamber half sequences (diastole to systole) of 500 patients, every frame labelled.

Also what the sets of label volumes share: finding their files, and reading labels to see which frames have any.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_prep.frames import VolumeFrame
from data_prep.mask_shapes import VolumeLabels
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from ultrasam.errors import DataError
from ultrasam.io.volumes import Volume, read_volume

INFO = DatasetInfo(
    slug="camus",
    name="CAMUS",
    home="https://humanheart-project.creatis.insa-lyon.fr/database/#collection/6373703d73e9f0047faa1bc8",
    licence="CC BY-NC-SA 4.0",
    application="cardiac",
    organ="heart",
    categories=("left_ventricle", "left_ventricular_myocardium", "left_atrium"),
    group_key="patient",
    official_split="training, validation and testing patients (database_split/subgroup_*.txt)",
    expected={"images": 19232, "groups": 500},
    # Labels are drawn beyond the sector; blood is black, so that a test for black pixels would punch holes.
    rules=MaskRules(split_components=False, clip_to_fov=True),
    table1=(19232, 58570),
    view="apical two-chamber and apical four-chamber",
    names=("*camus*", "database_nifti*"),
)

_NAME = re.compile(r"(patient\d+)_([24]CH)_half_sequence\.nii(\.gz)?")
_VIEWS = {"2CH": "apical two-chamber", "4CH": "apical four-chamber"}
_LABELS = {1: "left_ventricle", 2: "left_ventricular_myocardium", 3: "left_atrium"}


def records(root: Path) -> Iterator[Record]:
    """Yield one record per labelled frame of the half sequences; the ED and ES files repeat two of their frames."""
    sides = _official_sides(root)
    for image in find_files(root, "patient*_half_sequence.nii*"):
        match = _NAME.fullmatch(image.name)
        if match is None:
            raise DataError(f"{image}: a name like patient0001_2CH_half_sequence.nii.gz was expected")
        patient, view = match[1], match[2]
        labels = image.with_name(image.name.replace("_half_sequence", "_half_sequence_gt"))
        volume = label_volume(labels)
        side = {"official_split": sides[patient]} if patient in sides else {}
        for frame in labelled_frames(volume):
            yield Record(
                key=f"{patient}_{view}_{frame:05d}",
                image=VolumeFrame(image, frame),
                masks=(VolumeLabels(labels, frame, _LABELS),),
                group=patient,
                frame=frame,
                spacing=pixel_spacing(volume),
                attributes={"view": _VIEWS[view], **side},
            )


def _official_sides(root: Path) -> dict[str, str]:
    """Return the official side by patient, as far as the lists are there; DataError for a patient on two lists."""
    sides: dict[str, str] = {}
    for side in ("training", "validation", "testing"):
        for path in sorted(root.rglob(f"subgroup_{side}.txt")):
            for patient in path.read_text(encoding="utf-8", errors="replace").split():
                if sides.setdefault(patient, side) != side:
                    raise DataError(f"{path}: {patient} was expected on one list, found also in {sides[patient]}")
    return sides


def find_files(root: Path, pattern: str) -> list[Path]:
    """Return the files of a name pattern at any depth, sorted; DataError when there is none."""
    found = sorted(path for path in root.rglob(pattern) if path.is_file()
                   and "__MACOSX" not in path.parts and not path.name.startswith("._"))
    if not found:
        raise DataError(f"{root}: files named {pattern} were expected, found none; check the source and unpack "
                        "every archive in it")
    return found


def folder_above(path: Path, root: Path) -> Path:
    """Return the folder that holds the file's folder and those beside it.

    Raises:
        DataError: it is not inside the source.
    """
    if path.parent == root:
        raise DataError(f"{root}: the folder above was expected as the source, since labels and images lie in "
                        "folders beside each other")
    return path.parents[1]


def label_volume(path: Path) -> Volume | None:
    """Return a label volume; None where it is missing or unreadable.

    Its set then gives one record for the file all the same, so that the conversion names and counts the fault.
    """
    try:
        return read_volume(path)
    except DataError:
        return None


def labelled_frames(volume: Volume | None, least: int = 1) -> list[int]:
    """Return the numbers of the frames with at least ``least`` labelled pixels; frame 0 of an unreadable file."""
    if volume is None:
        return [0]
    return [number for number, frame in enumerate(volume.array) if np.count_nonzero(frame) >= least]


def pixel_spacing(volume: Volume | None) -> tuple[float, float] | None:
    """Return millimetres per pixel along (rows, columns) of a frame, where the header has them."""
    return None if volume is None or volume.spacing is None else volume.spacing[1:]


CONVERTER = Converter(INFO, records)
