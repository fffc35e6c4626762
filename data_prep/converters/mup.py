"""MUP: micro-ultrasound volumes of the prostate of 75 patients, outlined by an expert (MicroSegNet).

Also the frames of volumes that are shown as their header says, with axes reversed where needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.converters.camus import find_files, folder_above, label_volume, pixel_spacing
from data_prep.frames import VolumeFrame
from data_prep.mask_shapes import VolumeLabels
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from ultrasam.errors import DataError
from ultrasam.io.volumes import Volume

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

Flips = tuple[bool, bool]


@dataclass(frozen=True)
class UprightFrame(VolumeFrame):
    """A frame with its (rows, columns) reversed where ``flips`` says so."""

    flips: Flips = (False, False)

    def read(self) -> np.ndarray:
        """Return the frame, uint8 H x W x 3 RGB."""
        return _flipped(super().read(), self.flips)


@dataclass(frozen=True)
class UprightLabels(VolumeLabels):
    """A label frame with its (rows, columns) reversed where ``flips`` says so."""

    flips: Flips = (False, False)

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return one bool height x width mask per value present, by value."""
        return [(name, _flipped(mask, self.flips)) for name, mask in super().read(height, width)]


def flips_of(volume: Volume | None) -> Flips:
    """Return which of (rows, columns) a viewer that goes by the header shows reversed.

    Viewers let rows run to the back or the feet and columns to the left or the back, so an axis that grows to
    the right, the front or the head is reversed. Label and image must be read with the same answer.
    """
    if volume is None:
        return False, False
    _, rows, columns = volume.directions
    return rows in ("R", "A", "S"), columns in ("R", "A", "S")


def flip_attributes(flips: Flips) -> dict[str, object]:
    """Return what an image record says about reversed axes: nothing where none is."""
    names = [name for name, flip in zip(("rows", "columns"), flips, strict=True) if flip]
    return {"reversed_axes": names} if names else {}


def _flipped(array: np.ndarray, flips: Flips) -> np.ndarray:
    """Return an array with its first two axes reversed where asked, contiguous."""
    return np.ascontiguousarray(array[::-1 if flips[0] else 1, ::-1 if flips[1] else 1])


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
                image=UprightFrame(image, frame, flips=flips),
                masks=(UprightLabels(labels, frame, {1: "prostate"}, flips=flips),),
                group=f"{side}_{number}",
                frame=frame,
                spacing=pixel_spacing(volume),
                attributes={"official_split": side, **flip_attributes(flips)},
            )


CONVERTER = Converter(INFO, records)
