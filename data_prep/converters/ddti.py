"""DDTI: thyroid nodules, as prepared by others and packed into the TN3K archive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.listing import find_pair, numbered, paired
from data_prep.mask_files import ThresholdMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from data_prep.thyroid_archive import ARCHIVE_ACCESS, ARCHIVE_NAMES

INFO = DatasetInfo(
    slug="ddti",
    name="DDTI",
    home="https://github.com/openmedlab/Awesome-Medical-Dataset/blob/main/resources/TN3K.md",
    licence="not stated",
    application="thyroid nodules",
    organ="thyroid",
    categories=("thyroid_nodule",),
    group_key="image (the numbers of the patients were lost when the images were renumbered)",
    expected={"images": 637},
    # Masks have grey borders; where these are thresholded, single pixels can come off.
    rules=MaskRules(fill_holes=True, min_area=20),
    table1=(637, 645),
    view="thyroid",
    names=("*ddti*", *ARCHIVE_NAMES),
    access=ARCHIVE_ACCESS,
)


def records(root: Path) -> Iterator[Record]:
    """Yield one record per image of the first stage (``stage2`` holds the same nodules cut out).

    The classes of category.csv and train.csv are not read: the file that comes with them says that they are made up.
    """
    images, masks = find_pair(root, ("2_preprocessed_data/stage1/p_image", "p_mask"), ("stage1/p_image", "p_mask"))
    for number, image, mask in paired(images, masks, numbered):
        key = f"{number:04d}"
        yield Record(key, ImageFile(image), (ThresholdMask(mask, "thyroid_nodule"),), group=key)


CONVERTER = Converter(INFO, records)
