"""MMOTU, OTU_3d: ovarian tumours in contrast-enhanced images. Despite the name they are single pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.listing import find_pair
from data_prep.mask_files import PaintedMask
from data_prep.mmotu_archive import COLOURS, COPIES, read_sides
from data_prep.records import Converter, DatasetInfo, MaskRules, Record

INFO = DatasetInfo(
    slug="mmotu_3d",
    name="MMOTU OTU_3d (CEUS)",
    home="https://github.com/cv516Buaa/MMOTU_DS2Net",
    licence="not stated for the images",
    application="ovarian",
    organ="ovary",
    categories=("ovarian_tumor",),
    group_key="image (patients are not published)",
    official_split="train.txt and val.txt, kept as an attribute",
    expected={"images": 170},
    # As in OTU_2d, a few masks have specks beside the lesion.
    rules=MaskRules(fill_holes=True, min_area=100),
    table1=(187, 187),
    view="ovary, contrast-enhanced",
    names=("*mmotu*", "*otu_3d*", "*otu-3d*", "*otu_ceus*"),
    access="Google Drive folder linked from the repository; take OTU_3d.",
    ignored=COPIES,
)


def records(root: Path) -> Iterator[Record]:
    """Yield one record per image of the official lists."""
    images, masks = find_pair(root, ("OTU_3d/images", "annotations"), ("OTU_CEUS/images", "annotations"))
    for stem, side in read_sides(images.parent).items():
        key = f"{int(stem):04d}"
        mask = PaintedMask(masks / f"{stem}.PNG", "ovarian_tumor", COLOURS)
        yield Record(key, ImageFile(images / f"{stem}.JPG"), (mask,), group=key, attributes={"official_split": side})


CONVERTER = Converter(INFO, records)
