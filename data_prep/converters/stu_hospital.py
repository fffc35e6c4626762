"""STU-Hospital: breast lesions, small images with masks of other sizes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.listing import match_files
from data_prep.mask_files import CheckedMask, ThresholdMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record

INFO = DatasetInfo(
    slug="stu_hospital",
    name="STU-Hospital",
    home="https://github.com/xbhlk/STU-Hospital",
    licence="not stated; public research set",
    # The paper's table files it under "other"; the images show breasts.
    application="breast lesions",
    organ="breast",
    categories=("breast_lesion",),
    group_key="image (patients are not published)",
    expected={"images": 42, "masks": 42},
    # Images have 128 x 128 pixels; a smaller component can only be a speck of the soft border.
    rules=MaskRules(fill_holes=True, min_area=10),
    table1=(42, 42),
    view="breast",
    names=("*stu-hospital*", "*stu_hospital*", "stu", "stu.*"),
)


def records(root: Path) -> Iterator[Record]:
    """Yield one record per image or mask number; nothing in the set says benign or malignant."""
    images: dict[int, dict[str, Path]] = defaultdict(dict)
    files = match_files(root, r"(test_image|mask)_(\d+)\.png", "Hospital/Test_Image_1.png")
    for (part, digits), path in files.items():
        images[int(digits)][part] = path
    for number, parts in sorted(images.items()):
        folder = next(iter(parts.values())).parent
        key = f"Test_Image_{number}"
        mask = ThresholdMask(parts.get("mask", folder / f"mask_{number}.png"), "breast_lesion", resize=True)
        yield Record(
            key=key,
            image=ImageFile(parts.get("test_image", folder / f"{key}.png")),
            masks=(CheckedMask(mask, "of a lesion"),),
            group=key,
        )


CONVERTER = Converter(INFO, records)
