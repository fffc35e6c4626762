"""CardiacUDC (CardiacUDA): heart videos of several sites; the meaning of the label values depends on the view.

Videos of the ``Site_*`` folders are labelled in about five frames, those of ``label_all_frame`` in all, partly with
outlines instead of areas and in a few files with other values. Frames that do not fit fail one by one, so that
converting the complete set needs ``--keep-going``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from data_prep.chambers import LEAST_AREA, ChamberLabels
from data_prep.frames import VolumeFrame, flip_attributes, flips_of, label_volume, labelled_frames, pixel_spacing
from data_prep.listing import find_files
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
    # Outlines are filled; smaller components are slips of the pen of one or a few pixels.
    rules=MaskRules(split_components=False, fill_holes=True, min_area=LEAST_AREA),
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
                image=VolumeFrame(image, frame, flips=flips),
                masks=(ChamberLabels(labels, frame, _VIEWS[view][1], flips=flips),),
                group=patient if patient in repeated else f"{site}/{patient}",
                frame=frame,
                spacing=pixel_spacing(volume),
                attributes={"view": _VIEWS[view][0], **flip_attributes(flips)},
            )


CONVERTER = Converter(INFO, records)
