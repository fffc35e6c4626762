"""LUSS_phantom: ribs, pleura and artefacts in scans of a lung phantom."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.listing import by_stem, find_folders, paired
from data_prep.mask_files import LabelMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from ultrasam.errors import DataError

_CATEGORIES = ("rib", "pleural_line", "a_line", "b_line", "b_line_confluence")

INFO = DatasetInfo(
    slug="luss_phantom",
    name="LUSS_phantom",
    home="https://archive.researchdata.leeds.ac.uk/1263/",
    licence="as stated on the page of the archive",
    application="artefacts",
    organ="lung (phantom)",
    view="longitudinal",
    categories=_CATEGORIES,
    group_key="clip (file name before -F)",
    official_split="train and test folders (kept as an attribute)",
    expected={"images": 564},
    # Lines fall into fragments; of less than ten pixels they are crumbs of the drawing tool.
    rules=MaskRules(min_area=10),
    table1=(564, 3816),
    names=("*luss?phantom*", "luss*"),
)
_NAME = re.compile(r"(?P<clip>.+)-F(?P<frame>\d+)")


def records(root: Path) -> Iterator[Record]:
    """Yield one record per name in the folders of each side; some names are on both sides."""
    for side in ("train", "test"):
        for parent in sorted({path.parent for path in find_folders(root, f"{side}/images", f"{side}/masks")}):
            for stem, image, mask in paired(parent / "images", parent / "masks", by_stem):
                match = _NAME.fullmatch(stem)
                if match is None:
                    raise DataError(f"{parent}: names <clip>-F<frame>.png were expected, found {image.name!r}")
                yield Record(
                    key=f"{side}_{re.sub(r'[^A-Za-z0-9_.+-]', '-', stem)}",
                    image=ImageFile(image),
                    masks=(LabelMask(mask, dict(enumerate(_CATEGORIES, start=1))),),
                    group=match["clip"],
                    frame=int(match["frame"]),
                    attributes={"official_split": side},
                )


CONVERTER = Converter(INFO, records)
