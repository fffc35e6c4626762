"""Fast-U-Net: abdomens (AC) and heads (HC) of fetuses; the heads are the training images of HC18, resized."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.mask_files import ThresholdMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from ultrasam.errors import DataError
from ultrasam.io.images import read_mask

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
    # One solid structure each, of thousands of pixels; resizing and JPEG leave specks around it.
    rules=MaskRules(split_components=False, fill_holes=True, min_area=300),
    table1=(1411, 1407),
    names=("*fast-u-net*", "*fast_u_net*", "*fast?unet*", "*fastunet*"),
)
_CATEGORY = {"AC": "fetal_abdomen", "HC": "fetal_head"}
_THRESHOLD = 127


def records(root: Path) -> Iterator[Record]:
    """Yield one record per line of the lists and per test image, unless its mask is empty.

    An empty mask is an image that nobody annotated: there is a head or an abdomen in each.
    """
    empty = 0
    for record in _all(root):
        if _is_empty(record.paths[1]):
            empty += 1
        else:
            yield record
    if empty:
        print(f"{INFO.slug}: {empty} images have an empty mask and are left out", file=sys.stderr)


def _all(root: Path) -> Iterator[Record]:
    """Yield the records, also those with an empty mask."""
    for organ, category in _CATEGORY.items():
        folder = _list(root, organ, "train").parent
        files = _by_role(folder)
        for split in ("train", "val"):
            for image, mask in _pairs(_list(root, organ, split)):
                stem = Path(image).stem
                yield Record(
                    key=f"{organ}_{stem}",
                    image=ImageFile(files.get(("image", image), folder / f"{organ}_image" / image)),
                    masks=(ThresholdMask(files.get(("mask", mask), folder / f"{organ}_mask" / mask), category,
                                         threshold=_THRESHOLD),),
                    group=stem[:3] if organ == "HC" else f"AC_{stem}",
                    attributes={"official_split": split} | ({"same_as": f"hc18/{stem}"} if organ == "HC" else {}),
                )
    # Three images beside the data set proper; all three show heads.
    for images in sorted(path for path in root.rglob("test_data/image") if "__MACOSX" not in path.parts):
        for path in sorted(images.glob("[!.]*.*")):
            yield Record(
                key=f"test_{path.stem}",
                image=ImageFile(path),
                masks=(ThresholdMask(images.with_name("mask") / path.name, "fetal_head", threshold=_THRESHOLD),),
                group=f"test_{path.stem}",
                attributes={"official_split": "test"},
            )


def _list(root: Path, organ: str, split: str) -> Path:
    """Return the list of one organ and split; DataError when it is not there once."""
    found = [path for path in root.rglob(f"{organ}/{split}.txt") if "__MACOSX" not in path.parts]
    if len(found) != 1:
        raise DataError(f"{root}: one file {organ}/{split}.txt was expected, found {len(found)}; give the folder of "
                        "one copy of the repository")
    return found[0]


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
    for path in sorted(path for ending in ("png", "jpg") for path in folder.rglob(f"[!.]*.{ending}")):
        folders = path.relative_to(folder).parts[:-1]
        role = "mask" if any("mask" in part.lower() for part in folders) else "image"
        other = found.setdefault((role, path.name), path)
        if other != path and other.read_bytes() != path.read_bytes():
            raise DataError(f"{path}: one {role} of this name was expected, {other} is another; remove one of them")
    return found


def _is_empty(mask: Path) -> bool:
    """Whether a mask has no foreground; not so for one that cannot be read, which its conversion reports."""
    try:
        return mask.is_file() and not (read_mask(mask) > _THRESHOLD).any()
    except DataError:
        return False


CONVERTER = Converter(INFO, records)
