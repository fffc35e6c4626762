"""TG3K: the thyroid gland (not its nodules) in 3585 frames of 16 ultrasound videos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.listing import find_pair, numbered, paired
from data_prep.mask_files import ThresholdMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from data_prep.thyroid_archive import ARCHIVE_ACCESS, ARCHIVE_NAMES
from ultrasam.datasets.coco_images import load_json
from ultrasam.errors import DataError
from ultrasam.io.images import image_size

INFO = DatasetInfo(
    slug="tg3k",
    name="TG3K",
    home="https://github.com/haifangong/TRFE-Net-for-thyroid-nodule-segmentation",
    licence="not stated for the images (code MIT)",
    application="thyroid nodules",
    organ="thyroid gland",
    categories=("thyroid_gland",),
    group_key="video (run of constant image size over the sorted index; two videos of one size in a row are one)",
    official_split="tg3k-trainval.json, which cuts inside a video and is therefore only kept as an attribute",
    expected={"images": 3585, "groups": 15},
    # Masks are JPEG: compression leaves specks, while the authors kept frames with more than 6 % gland only.
    rules=MaskRules(fill_holes=True, min_area=100),
    table1=(3585, 23283),
    view="thyroid, transverse",
    names=("*tg3k*", *ARCHIVE_NAMES),
    access=ARCHIVE_ACCESS,
)


def records(root: Path) -> Iterator[Record]:
    """Yield one record per frame."""
    images, masks = find_pair(root, ("thyroid-image", "thyroid-mask"))
    sides = _shipped_sides(images.parent / "tg3k-trainval.json")
    video, size = 0, None
    for number, image, mask in paired(images, masks, numbered):
        found = _size(image, mask)
        if found not in (None, size):
            video, size = video + 1, found
        side = {} if number not in sides else {"official_split": sides[number]}
        yield Record(f"{number:04d}", ImageFile(image), (ThresholdMask(mask, "thyroid_gland"),),
                     group=f"video_{video:02d}", attributes=side)


def _size(image: Path, mask: Path) -> tuple[int, int] | None:
    """Return height and width from the header of the image, or of its mask; None where neither can be read."""
    for path in (image, mask):
        try:
            return image_size(path)
        except DataError:
            continue  # The conversion reads the file again, and names what is wrong with it.
    return None


def _shipped_sides(path: Path) -> dict[int, str]:
    """Return the authors' side by number; empty where the download has no such file."""
    if not path.is_file():
        return {}
    sides: dict[int, str] = {}
    content = load_json(path)
    for side in ("train", "val"):
        for number in content.get(side, []):
            if sides.setdefault(number, side) != side:
                raise DataError(f"{path}: every frame in one list was expected, found {number!r} in train and in val; "
                                "use the original file")
    return sides


CONVERTER = Converter(INFO, records)
