"""Common Carotid Artery Ultrasound Images: cross-sections of the artery from time series of 11 subjects."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.listing import by_stem, find_folders, paired
from data_prep.mask_files import BinaryMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from ultrasam.errors import DataError

INFO = DatasetInfo(
    slug="ccaui",
    name="Common Carotid Artery Ultrasound Images",
    home="https://data.mendeley.com/datasets/d4xt63mgjm/1",
    licence="CC BY 4.0",
    application="carotid artery",
    organ="carotid artery",
    view="transverse",
    categories=("carotid_artery",),
    group_key="examination (file name before _slice_)",
    expected={"images": 1100, "masks": 1100},
    # The picture fills the file; its dark near field and depth are tissue, not background.
    rules=MaskRules(crop_background=False, split_components=False, fill_holes=True),
    table1=(1100, 1100),
    names=("*common?carotid?artery*", "*ccaui*", "cca", "*d4xt63mgjm*"),
)
_NAME = re.compile(r"(?P<exam>\w+)_slice_(?P<frame>\d+)")


def records(root: Path) -> Iterator[Record]:
    """Yield one record per file name in the two folders."""
    for images in find_folders(root, "US images"):
        for stem, image, mask in paired(images, images.with_name("Expert mask images"), by_stem):
            match = _NAME.fullmatch(stem)
            if match is None:
                raise DataError(f"{image}: a name <examination>_slice_<number>.png was expected, found {image.name}")
            yield Record(
                key=stem,
                image=ImageFile(image),
                masks=(BinaryMask(mask, "carotid_artery"),),
                group=match["exam"],
                frame=int(match["frame"]),
            )


CONVERTER = Converter(INFO, records)
