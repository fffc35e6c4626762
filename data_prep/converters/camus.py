"""CAMUS: apical two- and four-chamber half sequences (diastole to systole) of 500 patients, every frame labelled."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import VolumeFrame, label_volume, labelled_frames, pixel_spacing
from data_prep.listing import files_below, find_files
from data_prep.mask_shapes import VolumeLabels
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from ultrasam.errors import DataError

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
        for path in files_below(root, f"subgroup_{side}.txt"):
            for patient in path.read_text(encoding="utf-8", errors="replace").split():
                if sides.setdefault(patient, side) != side:
                    raise DataError(f"{path}: {patient} was expected on one list, found also in {sides[patient]}")
    return sides


CONVERTER = Converter(INFO, records)
