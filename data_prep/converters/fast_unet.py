"""Fast-U-Net: abdomens (AC) and heads (HC) of fetuses; the heads are the training images of HC18, resized."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.listing import by_stem, files_below, find_folders, paired
from data_prep.mask_files import ThresholdMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from data_prep.sources import find_one
from ultrasam.errors import DataError

INFO = DatasetInfo(
    slug="fast_unet",
    name="Fast-U-Net AC/HC",
    home="https://github.com/vahidashkani/Fast-U-Net",
    licence="not stated; cite the paper",
    application="fetal head",
    organ="fetal head and abdomen",
    view="transverse",
    categories=("fetal_abdomen", "fetal_head"),
    group_key="HC: fetus of HC18 (first three digits of the file name), as in hc18; AC: image",
    official_split="train.txt and val.txt (kept as an attribute)",
    # One solid structure each, of thousands of pixels; resizing and JPEG leave specks around it. There is a head or
    # an abdomen in every image, so that an empty mask is one that nobody drew.
    rules=MaskRules(split_components=False, fill_holes=True, min_area=300, drop_empty=True),
    table1=(1411, 1407),
    names=("*fast-u-net*", "*fast_u_net*", "*fast?unet*", "*fastunet*"),
)
_CATEGORY = {"AC": "fetal_abdomen", "HC": "fetal_head"}


def records(root: Path) -> Iterator[Record]:
    """Yield one record per line of the lists and per test image."""
    for organ, category in _CATEGORY.items():
        folder = find_one(root, f"{organ}/train.txt").parent
        files = _by_role(folder)
        for split in ("train", "val"):
            for name, drawn in _pairs(find_one(root, f"{organ}/{split}.txt")):
                stem = Path(name).stem
                yield Record(
                    key=f"{organ}_{stem}",
                    image=ImageFile(files.get(("image", name), folder / f"{organ}_image" / name)),
                    masks=(ThresholdMask(files.get(("mask", drawn), folder / f"{organ}_mask" / drawn), category),),
                    group=stem[:3] if organ == "HC" else f"AC_{stem}",
                    attributes={"official_split": split} | ({"same_as": f"hc18/{stem}"} if organ == "HC" else {}),
                )
    # Three images beside the data set proper; all three show heads.
    for images in find_folders(root, "test_data/image"):
        for stem, image, mask in paired(images, images.with_name("mask"), by_stem):
            yield Record(
                key=f"test_{stem}",
                image=ImageFile(image),
                masks=(ThresholdMask(mask, "fetal_head"),),
                group=f"test_{stem}",
                attributes={"official_split": "test"},
            )


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the names of image and mask that the lines of a list give, without their folders."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        names = [entry.rsplit("/", 1)[-1] for entry in line.split()]
        if len(names) not in (0, 2):
            raise DataError(f"{path}: line {number}: an image and a mask were expected, found {line!r}")
        if names:
            yield names[0], names[1]


def _by_role(folder: Path) -> dict[tuple[str, str], Path]:
    """Return the pictures below a folder by role (image or mask) and name; AC masks are named as their images.

    Raises:
        DataError: two that differ for one role and name.
    """
    found: dict[tuple[str, str], Path] = {}
    for path in sorted([*files_below(folder, "*.png"), *files_below(folder, "*.jpg")]):
        folders = path.relative_to(folder).parts[:-1]
        role = "mask" if any("mask" in part.lower() for part in folders) else "image"
        other = found.setdefault((role, path.name), path)
        if other != path and other.read_bytes() != path.read_bytes():
            raise DataError(f"{path}: one {role} of this name was expected, {other} is another; remove one of them")
    return found


CONVERTER = Converter(INFO, records)
