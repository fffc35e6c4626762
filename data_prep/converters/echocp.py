"""EchoCP: contrast echocardiography for patent foramen ovale, 30 patients at rest and in a Valsalva manoeuvre."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_prep.chambers import ventricles_apart
from data_prep.frames import (
    Flips,
    VolumeFrame,
    flip_attributes,
    flips_of,
    label_volume,
    labelled_frames,
    pixel_spacing,
)
from data_prep.listing import find_files
from data_prep.mask_shapes import VolumeLabels
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from ultrasam.errors import DataError

INFO = DatasetInfo(
    slug="echocp",
    name="EchoCP",
    home="https://www.kaggle.com/datasets/xiaoweixumedicalai/echocp",
    licence="see the Kaggle page",
    application="Patent Foramen Ovale",
    organ="heart",
    categories=("left_ventricle", "right_ventricle", "left_atrium", "right_atrium"),
    group_key="patient (both of its videos)",
    # Touching chambers stay apart, since every value is a mask of its own.
    rules=MaskRules(split_components=False, fill_holes=True),
    table1=(1300, 2364),
    view="apical four-chamber",
    names=("*echocp*", "*echo_cp*"),
    unsure="which chamber the label values 1 to 4 mean is not documented; it is told from where the chambers lie",
)

_NAME = re.compile(r"(\d{3})_([rv])_image(\.nii(?:\.gz)?)")
_ACTIONS = {"r": "rest", "v": "valsalva"}
# Both start with the left ventricle; the second is that of CardiacUDC, from the same authors.
_ORDERS = (
    ("left_ventricle", "right_ventricle", "left_atrium", "right_atrium"),
    ("left_ventricle", "left_atrium", "right_atrium", "right_ventricle"),
)


def records(root: Path) -> Iterator[Record]:
    """Yield one record per labelled frame; most frames of a video were not labelled and are left out."""
    found: list[tuple[Path, Path, str, str, list[int], tuple[float, float] | None, Flips]] = []
    votes: Counter[int] = Counter()
    for image in find_files(root, "*_image.nii*"):
        match = _NAME.fullmatch(image.name)
        if match is None:
            raise DataError(f"{image}: a name like 001_r_image.nii.gz was expected (r for rest, v for Valsalva)")
        labels = image.with_name(f"{match[1]}_{match[2]}_label{match[3]}")
        volume = label_volume(labels)
        frames = labelled_frames(volume)
        if volume is not None:
            votes.update(order for frame in frames for order in _orders_of(volume.array[frame]))
        found.append((image, labels, match[1], match[2], frames, pixel_spacing(volume), flips_of(volume)))
    chambers = _chamber_names(root, votes)
    for image, labels, patient, action, frames, spacing, flips in found:
        for frame in frames:
            yield Record(
                key=f"{patient}_{action}_{frame:05d}",
                image=VolumeFrame(image, frame, flips=flips),
                masks=(VolumeLabels(labels, frame, chambers, flips=flips),),
                group=patient,
                frame=frame,
                spacing=spacing,
                attributes={"action": _ACTIONS[action], **flip_attributes(flips)},
            )


def _orders_of(labels: np.ndarray) -> list[int]:
    """Return the number of the one order that a label frame fits; empty where it does not tell."""
    masks = [labels == value for value in (1, 2, 3, 4)]
    if not all(mask.any() for mask in masks):
        return []
    fitting = [number for number, order in enumerate(_ORDERS)
               if not ventricles_apart(dict(zip(order, masks, strict=True)))]
    return fitting if len(fitting) == 1 else []


def _chamber_names(root: Path, votes: Counter[int]) -> dict[int, str]:
    """Return label value to chamber, by the order that nearly all frames fit; DataError where none is."""
    best = 0 if votes[0] > votes[1] else 1
    if votes[best] == 0 or votes[best] < 0.9 * votes.total():
        raise DataError(f"{root}: frames with the label values 1 to 4 whose places tell the order of the chambers were "
                        f"expected, found {votes[0]} for {_ORDERS[0]} and {votes[1]} for {_ORDERS[1]}")
    return dict(enumerate(_ORDERS[best], start=1))


CONVERTER = Converter(INFO, records)
