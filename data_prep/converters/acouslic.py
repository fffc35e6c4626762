"""ACOUSLIC-AI: blind sweeps over the abdomen of pregnant women, with the fetal abdomen labelled in a few frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_prep.frames import VolumeFrame, label_volume, labelled_frames, pixel_spacing
from data_prep.listing import files_below, find_files
from data_prep.mask_shapes import VolumeLabels
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from data_prep.tables import read_csv
from ultrasam.errors import DataError
from ultrasam.io.volumes import Volume

INFO = DatasetInfo(
    slug="acouslic",
    name="ACOUSLIC-AI",
    home="https://acouslic-ai.grand-challenge.org/overview-and-goals/",
    licence="CC BY-NC-SA 4.0",
    application="fetal abdomen",
    organ="fetal abdomen",
    categories=("fetal_abdomen",),
    group_key="subject (subject_id of the circumference table), else the scan",
    # The challenge itself leaves pixels outside the field of view out of its scores.
    rules=MaskRules(split_components=False, fill_holes=True, clip_to_fov=True),
    table1=(6620, 6620),
    view="transverse fetal abdomen",
    names=("*acouslic*",),
)

_PLANES = {1: "optimal", 2: "suboptimal"}


def records(root: Path) -> Iterator[Record]:
    """Yield one record per labelled frame; the others of a sweep of 140 were not labelled and are left out."""
    subjects = _subjects(root)
    volumes = find_files(root, "*.mha")
    images = {path.name: path for path in volumes if path.parent.name == "stacked_fetal_ultrasound"}
    masks = [path for path in volumes if path.parent.name == "stacked_fetal_abdomen"]
    if not masks:
        raise DataError(f"{root}: label volumes in masks/stacked_fetal_abdomen were expected, found none")
    for labels in masks:
        image = images.get(labels.name, root / "images" / "stacked_fetal_ultrasound" / labels.name)
        volume = label_volume(labels)
        for frame in labelled_frames(volume):
            yield Record(
                key=f"{labels.stem}_{frame:05d}",
                image=VolumeFrame(image, frame),
                masks=(VolumeLabels(labels, frame, dict.fromkeys(_PLANES, "fetal_abdomen")),),
                group=subjects.get(labels.stem, labels.stem),
                frame=frame,
                spacing=pixel_spacing(volume),
                attributes=_plane(volume, frame),
            )


def _plane(volume: Volume | None, frame: int) -> dict[str, object]:
    """Return the quality of the plane as the label values state it; no entry for values that are not known."""
    values = [] if volume is None else np.unique(volume.array[frame]).tolist()
    names = [_PLANES[value] for value in values if value in _PLANES]
    return {"plane": " and ".join(names)} if names else {}


def _subjects(root: Path) -> dict[str, str]:
    """Return the subject by scan; empty where the table is not there."""
    tables = files_below(root, "fetal_abdominal_circumferences_per_sweep.csv")
    return {uuid: f"subject_{row['subject_id']}" for table in tables
            for uuid, row in read_csv(table, ("uuid", "subject_id"), key="uuid").items() if row["subject_id"]}


CONVERTER = Converter(INFO, records)
