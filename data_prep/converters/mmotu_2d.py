"""MMOTU, OTU_2d: ovarian tumours of seven kinds and normal ovaries; a test set of the paper."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.frames import ImageFile
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from data_prep.thyroid_archive import find_pair
from ultrasam.errors import DataError
from ultrasam.io.files import read_bytes
from ultrasam.io.images import read_mask_colours

INFO = DatasetInfo(
    slug="mmotu_2d",
    name="MMOTU OTU_2d",
    home="https://github.com/cv516Buaa/MMOTU_DS2Net",
    licence="not stated for the images",
    application="ovarian",
    organ="ovary",
    categories=("chocolate_cyst", "serous_cystadenoma", "teratoma", "theca_cell_tumor", "simple_cyst",
                "normal_ovary", "mucinous_cystadenoma", "high_grade_serous"),
    group_key="image (patients are not published; the authors keep them on one side)",
    official_split="train.txt (1000 images) and val.txt (469), which is the test side here as in the paper",
    expected={"images": 1469},
    # 1469 masks have 1489 pieces: some are specks beside the lesion, which has thousands of pixels.
    rules=MaskRules(fill_holes=True, min_area=100, crop_background=False),
    table1=(1489, 1489),
    view="ovary",
    names=("*mmotu*", "*otu_2d*", "*otu-2d*"),
    access="Google Drive folder linked from the repository; take OTU_2d.",
)

# Masks are painted in the colour of their class; the last is that of the two-class variants.
COLOURS = ((64, 0, 0), (0, 64, 0), (0, 0, 64), (64, 0, 64), (64, 64, 0), (64, 64, 64), (0, 128, 0), (0, 0, 128),
           (128, 0, 0))
_KNOWN = {(0, 0, 0), *COLOURS}


@dataclass(frozen=True)
class PaintedMask:
    """A mask file in which every pixel that is not black belongs to the lesion.

    Attributes:
        path: the mask file.
        category: name of the lesion's category.
    """

    path: Path
    category: str

    @property
    def paths(self) -> tuple[Path, ...]:
        """The one file read."""
        return (self.path,)

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return the lesion as one bool height x width mask; DataError for a colour that no class has."""
        pixels = read_mask_colours(self.path)
        if pixels.shape[:2] != (height, width):
            raise DataError(f"{self.path}: a mask of the image's {width} x {height} pixels was expected, found "
                            f"{pixels.shape[1]} x {pixels.shape[0]}; check that the files belong together")
        # One number per colour: finding the few different ones is then fast.
        packed = (pixels[..., 0].astype(np.int32) << 16) | (pixels[..., 1].astype(np.int32) << 8) | pixels[..., 2]
        unknown = {(code >> 16, code >> 8 & 255, code & 255) for code in np.unique(packed).tolist()} - _KNOWN
        if unknown:
            raise DataError(f"{self.path}: the colours of the classes {list(COLOURS)} on black were expected, found "
                            f"also {sorted(unknown)[:8]}; check that this is the original mask")
        return [(self.category, packed > 0)]


def records(root: Path) -> Iterator[Record]:
    """Yield one record per image of the official lists; the class of its lesion is that of the class lists."""
    images, masks = find_pair(root, ("OTU_2d/images", "annotations"))
    sides = read_sides(images.parent)
    classes = _classes(images.parent, sides)
    for stem, side in sides.items():
        category = INFO.categories[classes[stem]]
        # <n>_binary.PNG and <n>_binary_binary.PNG are copies of <n>.PNG without its colour.
        yield Record(f"{int(stem):04d}", ImageFile(images / f"{stem}.JPG"),
                     (PaintedMask(masks / f"{stem}.PNG", category),), group=f"{int(stem):04d}",
                     split="test" if side == "val" else "train", label=category,
                     attributes={"official_split": side})


def read_sides(folder: Path) -> dict[str, str]:
    """Return ``"train"`` or ``"val"`` by image number, as text, from train.txt and val.txt.

    Raises:
        DataError: a list is missing, holds something else than numbers, or one image is in both.
    """
    sides: dict[str, str] = {}
    for side in ("train", "val"):
        path = folder / f"{side}.txt"
        for stem, *more in _lines(path):
            if more or stem in sides:
                raise DataError(f"{path}: every image once, one a line, was expected, found {stem} "
                                f"{'twice' if stem in sides else more}; use the original lists")
            sides[stem] = side
    return sides


def _classes(folder: Path, sides: dict[str, str]) -> dict[str, int]:
    """Return the class 0 to 7 by image number; DataError unless every image of the lists has exactly one."""
    classes: dict[str, int] = {}
    for side in ("train", "val"):
        path = folder / f"{side}_cls.txt"
        for stem, *value in _lines(path):
            if len(value) != 1 or value[0] not in "01234567" or stem in classes or sides.get(stem) != side:
                raise DataError(f"{path}: lines like '1.JPG  0' with a class from 0 to 7, for the images of {side}.txt "
                                f"and once each, were expected, found {stem} {' '.join(value)}; use the original lists")
            classes[stem] = int(value[0])
    absent = [stem for stem in sides if stem not in classes]
    if absent:
        raise DataError(f"{folder}: a class of every image was expected in train_cls.txt and val_cls.txt, found none "
                        f"of {len(absent)} (first: {absent[:5]}); use the original lists")
    return classes


def _lines(path: Path) -> Iterator[list[str]]:
    """Yield the words of every line, the first one, an image, without its suffix."""
    for line in read_bytes(path).decode("utf-8-sig", "replace").splitlines():
        words = line.split()
        if words:
            stem = words[0].rpartition(".")[0] or words[0]
            if not (stem.isascii() and stem.isdigit()):
                raise DataError(f"{path}: lines that begin with the number of an image were expected, found {line!r}; "
                                "use the original lists")
            yield [stem, *words[1:]]


CONVERTER = Converter(INFO, records)
