"""mu-RegPro: transrectal ultrasound volumes of the prostate with gland and landmarks, cut into sagittal slices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import VolumeFrame, label_volume, labelled_frames, pixel_spacing
from data_prep.listing import find_files, folder_above
from data_prep.mask_shapes import VolumeLabels
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from ultrasam.errors import DataError

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
        volume = label_volume(labels, "sagittal")
        side = above.name if above.name in ("train", "val") else ""
        case = "_".join(part for part in (side, image.name.split(".")[0]) if part)
        # A file of one structure has no axis for channels.
        channels = 1 if volume is None or volume.array.ndim == 3 else volume.array.shape[3]
        for frame in labelled_frames(volume):
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


CONVERTER = Converter(INFO, records)
