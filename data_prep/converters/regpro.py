"""mu-RegPro: transrectal ultrasound volumes of the prostate with gland and landmarks, cut into sagittal slices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_prep.converters.camus import find_files, folder_above, label_volume, pixel_spacing
from data_prep.frames import VolumeFrame, sagittal
from data_prep.mask_shapes import VolumeLabels
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from ultrasam.errors import DataError
from ultrasam.io.volumes import Volume

INFO = DatasetInfo(
    slug="regpro",
    name="mu-RegPro",
    home="https://muregpro.github.io/data.html",
    licence="see the Zenodo record 8004388",
    application="prostate",
    organ="prostate",
    categories=("prostate_gland", "landmark"),
    group_key="case",
    official_split="train and val cases, by folder",
    rules=MaskRules(split_components=False),
    table1=(4706, 6492),
    view="transrectal, sagittal",
    names=("*regpro*", "*reg_pro*", "*reg-pro*"),
    unsure="that channel 0 of the labels is the gland and the others are landmarks is not stated by the release",
)


def records(root: Path) -> Iterator[Record]:
    """Yield one record per sagittal slice with a label; volumes of MR lie in other folders and are left out."""
    # By the folder's exact name: "mr" can be part of any folder above.
    images = [path for path in find_files(root, "case*.nii*") if path.parent.name == "us_images"]
    if not images:
        raise DataError(f"{root}: volumes in folders called us_images were expected, found none")
    for image in images:
        above = folder_above(image, root)
        labels = above / "us_labels" / image.name
        volume = _sagittal_labels(labels)
        side = above.name if above.name in ("train", "val") else ""
        case = "_".join(part for part in (side, image.name.split(".")[0]) if part)
        for frame in [0] if volume is None else np.flatnonzero(volume.array.any(axis=(1, 2, 3))).tolist():
            channels = 1 if volume is None else volume.array.shape[3]
            yield Record(
                key=f"{case}_{frame:05d}",
                image=VolumeFrame(image, frame, "sagittal"),
                masks=tuple(
                    VolumeLabels(labels, frame, {1: "landmark" if channel else "prostate_gland"}, channel=channel,
                                 view="sagittal")
                    for channel in range(channels)),
                group=case,
                frame=frame,
                spacing=pixel_spacing(volume),
                attributes={"official_split": side} if side else {},
            )


def _sagittal_labels(path: Path) -> Volume | None:
    """Return a label volume as sagittal slices (slices, rows, columns, channels); None where that fails."""
    found = label_volume(path)
    if found is None:
        return None
    try:
        volume = sagittal(found, path)
    except DataError:
        return None
    array = volume.array if volume.array.ndim == 4 else volume.array[..., None]
    return Volume(array, volume.spacing, volume.directions)


CONVERTER = Converter(INFO, records)
