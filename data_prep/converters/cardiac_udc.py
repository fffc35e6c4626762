"""CardiacUDC (CardiacUDA): heart videos of several sites; the meaning of the label values depends on the view.

Videos of the ``Site_*`` folders are labelled in about five frames, those of ``label_all_frame`` in all, partly with
outlines instead of areas and in a few files with other values. Frames that do not fit fail one by one, so that
converting the complete set needs ``--keep-going``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data_prep.converters.camus import find_files, label_volume, labelled_frames, pixel_spacing
from data_prep.converters.mup import UprightFrame, UprightLabels, flip_attributes, flips_of
from data_prep.masks import fill_holes
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from ultrasam.errors import DataError

# Frames with fewer labelled pixels hold slips of the pen, as in the authors' own loader.
_LEAST_PIXELS = 100

INFO = DatasetInfo(
    slug="cardiac_udc",
    name="CardiacUDC / CardiacUDA",
    home="https://www.kaggle.com/datasets/xiaoweixumedicalai/cardiacudc-dataset",
    licence="see the Kaggle page",
    application="cardiac",
    organ="heart",
    categories=("left_ventricle", "right_ventricle", "left_atrium", "right_atrium", "pulmonary_artery"),
    group_key="site and patient; one group over all sites for patients that label_all_frame repeats",
    # Outlines are filled; components below 50 pixels are slips of the pen of one or a few pixels.
    rules=MaskRules(split_components=False, fill_holes=True, min_area=50),
    table1=(1961, 7251),
    view="parasternal long axis, pulmonary artery, parasternal short axis, apical four-chamber",
    names=("*cardiacud[ac]*", "*cardiac_ud[ac]*", "*cardiac-ud[ac]*"),
    unsure="exact file names and the label values of label_all_frame are not documented",
)

_NAME = re.compile(r"(.+)-([1-4])_label(\.nii(?:\.gz)?)")
_PATIENT = re.compile(r"([A-Za-z]+)[-_]?0*(\d+)")
_VIEWS = {
    "1": ("parasternal long axis", {1: "left_ventricle", 2: "right_ventricle"}),
    "2": ("pulmonary artery", {1: "pulmonary_artery"}),
    "3": ("parasternal short axis", {1: "left_ventricle", 2: "right_ventricle"}),
    "4": ("apical four-chamber", {1: "left_ventricle", 2: "left_atrium", 3: "right_atrium", 4: "right_ventricle"}),
}


@dataclass(frozen=True)
class ChamberLabels(UprightLabels):
    """A label frame whose chambers must be areas or closed outlines, in the places that anatomy gives them."""

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return one bool height x width mask per value present; DataError for open lines and misnamed chambers."""
        masks = close_shared_outlines(dict(super().read(height, width)))
        where = f"{self.path}: frame {self.index}"
        for name, mask in masks.items():
            if is_line(fill_holes(mask)):
                raise DataError(f"{where}: an area or a closed outline was expected for {name}, found an open line")
        if ventricles_apart(masks):
            raise DataError(f"{where}: the two ventricles side by side were expected, found the left ventricle beside "
                            "an atrium; the file seems to number its chambers in another order")
        return list(masks.items())


def close_shared_outlines(masks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the masks (bool H x W) with the inside of outlines that are closed by a neighbour's outline only.

    Where two outlines share a stretch, the pixels have one value, and the other outline is open there. A hole is
    the inside of the outline that makes up more than half of its rim; one that four chambers surround is nobody's.
    """
    if not masks:
        return masks
    filled = dict(masks)
    union = np.logical_or.reduce(list(masks.values()))
    count, holes = cv2.connectedComponents((fill_holes(union) & ~union).astype(np.uint8), connectivity=4)
    for number in range(1, count):
        hole = holes == number
        rim = cv2.dilate(hole.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~hole
        owner = max(masks, key=lambda name: int((masks[name] & rim).sum()))
        if 2 * int((masks[owner] & rim).sum()) > int(rim.sum()) and is_line(fill_holes(masks[owner])):
            filled[owner] = filled[owner] | hole
    return filled


def is_line(mask: np.ndarray) -> bool:
    """Whether most of a bool H x W mask is thinner than five pixels; never for masks of fewer than 50 pixels."""
    area = int(mask.sum())
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    # Padded, since a chamber may be cut by the border of the image.
    opened = cv2.morphologyEx(np.pad(mask, 4, mode="edge").astype(np.uint8), cv2.MORPH_OPEN, kernel)[4:-4, 4:-4]
    return area >= INFO.rules.min_area and 2 * int(opened.sum()) < area


def ventricles_apart(masks: dict[str, np.ndarray]) -> bool:
    """Whether four chambers by name contradict the apical view: the ventricles are on one height, the atria on another.

    Which side is up does not matter. False where a chamber is missing.
    """
    names = ("left_ventricle", "right_ventricle", "left_atrium", "right_atrium")
    if any(name not in masks for name in names):
        return False
    left, right, *atria = (float(np.nonzero(masks[name])[0].mean()) for name in names)
    return abs(left - right) > min(abs(left - atrium) for atrium in atria)


def records(root: Path) -> Iterator[Record]:
    """Yield one record per labelled frame; videos without a label file are unlabelled (all of Site_R_73)."""
    files: list[tuple[Path, str, str, str, str]] = []
    for labels in find_files(root, "*_label.nii*"):
        match, person = _NAME.fullmatch(labels.name), _PATIENT.match(labels.name)
        if match is None or person is None:
            raise DataError(f"{labels}: a name like patient-12-4_label.nii.gz was expected, with the view 1 to 4")
        files.append((labels, match[1], match[2], match[3], f"{person[1].lower()}-{person[2]}"))
    # That folder does not tell the site, so a patient in it is joined with those of its name at all sites.
    repeated = {patient for labels, *_, patient in files if labels.parent.name == "label_all_frame"}
    for labels, name, view, suffix, patient in files:
        site, stem = labels.parent.name, f"{name}-{view}"
        image = labels.with_name(f"{stem}_image{suffix}")
        volume = label_volume(labels)
        flips = flips_of(volume)
        for frame in labelled_frames(volume, _LEAST_PIXELS):
            yield Record(
                key=f"{site}_{stem}_{frame:05d}",
                image=UprightFrame(image, frame, flips=flips),
                masks=(ChamberLabels(labels, frame, _VIEWS[view][1], flips=flips),),
                group=patient if patient in repeated else f"{site}/{patient}",
                frame=frame,
                spacing=pixel_spacing(volume),
                attributes={"view": _VIEWS[view][0], **flip_attributes(flips)},
            )


CONVERTER = Converter(INFO, records)
