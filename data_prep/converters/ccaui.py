"""Common Carotid Artery Ultrasound Images: cross-sections of the artery from time series of 11 subjects."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
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
    for images in sorted(root.rglob("US images")):
        if "__MACOSX" in images.parts:
            continue
        masks = images.with_name("Expert mask images")
        for name in sorted({path.name for folder in (images, masks) for path in folder.glob("[!.]*.png")}):
            match = _NAME.fullmatch(Path(name).stem)
            if match is None:
                raise DataError(f"{images / name}: a name <examination>_slice_<number>.png was expected, found {name}")
            yield Record(
                key=Path(name).stem,
                image=ImageFile(images / name),
                masks=(BinaryMask(masks / name, "carotid_artery"),),
                group=match["exam"],
                frame=int(match["frame"]),
            )


CONVERTER = Converter(INFO, records)
