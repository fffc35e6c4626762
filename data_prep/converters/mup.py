"""MUP: micro-ultrasound volumes of the prostate of 75 patients, outlined by an expert (MicroSegNet)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import VolumeFrame, flip_attributes, flips_of, label_volume, pixel_spacing
from data_prep.listing import find_files, folder_above
from data_prep.mask_shapes import VolumeLabels
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from ultrasam.errors import DataError

INFO = DatasetInfo(
    slug="mup",
    name="Micro-ultrasound prostate (MicroSegNet)",
    home="https://zenodo.org/records/10475293",
    licence="see the Zenodo record",
    application="prostate",
    organ="prostate",
    categories=("prostate",),
    group_key="patient (train or test, and its number)",
    official_split="55 train and 20 test patients, by folder",
    expected={"groups": 75},
    rules=MaskRules(split_components=False, fill_holes=True, clip_to_fov=True),
    table1=(2910, 2650),
    view="transrectal, slices of the scan as stored",
    names=("*micro_ultrasound_prostate*", "*micro-ultrasound*prostate*", "mup", "mup.*"),
)

_NAME = re.compile(r"microUS_(train|test)_(\d+)(\.nii(?:\.gz)?)")


def records(root: Path) -> Iterator[Record]:
    """Yield one record per slice; slices without prostate stay, since the expert went through whole volumes.

    Only the folder called exactly ``expert_annotations`` counts; ``non_expert_annotations`` and the students'
    folders lie beside it. Case numbers restart in ``test``.
    """
    for image in find_files(root, "microUS_*.nii*"):
        match = _NAME.fullmatch(image.name)
        if match is None or image.parent.name != "micro_ultrasound_scans":
            raise DataError(f"{image}: a scan like micro_ultrasound_scans/microUS_train_01.nii.gz was expected")
        side, number, suffix = match[1], match[2], match[3]
        labels = folder_above(image, root) / "expert_annotations" / f"expert_annotation_{side}_{number}{suffix}"
        volume = label_volume(labels)
        flips = flips_of(volume)
        # A volume without any label was not annotated; a missing one gives a record that fails by name.
        frames = range(1) if volume is None else range(len(volume.array)) if volume.array.any() else range(0)
        for frame in frames:
            yield Record(
                key=f"{side}_{number}_{frame:05d}",
                image=VolumeFrame(image, frame, flips=flips),
                masks=(VolumeLabels(labels, frame, {1: "prostate"}, flips=flips),),
                group=f"{side}_{number}",
                frame=frame,
                spacing=pixel_spacing(volume),
                attributes={"official_split": side, **flip_attributes(flips)},
            )


CONVERTER = Converter(INFO, records)
