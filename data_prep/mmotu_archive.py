"""What the two halves of MMOTU (mmotu_2d, mmotu_3d) share: their lists, and the colours of their masks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ultrasam.errors import DataError
from ultrasam.io.files import read_bytes

# Masks are painted in the colour of their class; the last is that of the two-class variants.
COLOURS = ((64, 0, 0), (0, 64, 0), (0, 0, 64), (64, 0, 64), (64, 64, 0), (64, 64, 64), (0, 128, 0), (0, 0, 128),
           (128, 0, 0))
# <n>_binary.PNG and <n>_binary_binary.PNG are copies of <n>.PNG without its colour.
COPIES = ("*_binary.png",)


def read_sides(folder: Path) -> dict[str, str]:
    """Return ``"train"`` or ``"val"`` by image number, as text, from train.txt and val.txt.

    Raises:
        DataError: a list is missing, holds something else than numbers, or one image is in both.
    """
    sides: dict[str, str] = {}
    for side in ("train", "val"):
        path = folder / f"{side}.txt"
        for stem, *more in listed(path):
            if more or stem in sides:
                raise DataError(f"{path}: every image once, one a line, was expected, found {stem} "
                                f"{'twice' if stem in sides else more}; use the original lists")
            sides[stem] = side
    return sides


def listed(path: Path) -> Iterator[list[str]]:
    """Yield the words of every line of a list, the first one, an image, without its suffix.

    Raises:
        DataError: the file is missing, or a line does not begin with the number of an image.
    """
    for line in read_bytes(path).decode("utf-8-sig", "replace").splitlines():
        words = line.split()
        if words:
            stem = words[0].rpartition(".")[0] or words[0]
            if not (stem.isascii() and stem.isdigit()):
                raise DataError(f"{path}: lines that begin with the number of an image were expected, found {line!r}; "
                                "use the original lists")
            yield [stem, *words[1:]]
