"""105US: liver metastases of pancreatic cancer, one per image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.listing import find_pair, numbered, paired
from data_prep.mask_files import ThresholdMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record

INFO = DatasetInfo(
    slug="us105",
    name="105US",
    home="https://www.researchgate.net/publication/329586355_100_2D_US_Images_and_Tumor_Segmentation_Masks",
    licence="not stated",
    application="liver",
    organ="liver",
    categories=("liver_metastasis",),
    group_key="image (patients are not published)",
    expected={"images": 105},
    # Masks have soft borders; where these are thresholded, single pixels can come off.
    rules=MaskRules(fill_holes=True, min_area=20),
    table1=(105, 105),
    view="liver",
    names=("*105us*", "*105 us*", "*105_us*", "*105-us*", "*us105*", "*100 2d us images*", "*100_2d_us_images*"),
)


def records(root: Path) -> Iterator[Record]:
    """Yield one record per image; ``001.png`` has the mask ``001 G man.png``."""
    images, masks = find_pair(root, ("105 US Images", "105 US Masks"), ("Images", "Masks"))
    for number, image, mask in paired(images, masks, numbered):
        key = f"{number:03d}"
        # The masks' whites are not always 255, so that only a threshold keeps them whole.
        yield Record(key, ImageFile(image), (ThresholdMask(mask, "liver_metastasis"),), group=key)


CONVERTER = Converter(INFO, records)
