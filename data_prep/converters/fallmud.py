"""FALLMUD: aponeuroses and fascicles in longitudinal images of the lower leg, from two laboratories."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.listing import by_stem, find_folders
from data_prep.mask_files import ThresholdMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from ultrasam.errors import DataError
from ultrasam.io.images import image_size

INFO = DatasetInfo(
    slug="fallmud",
    name="FALLMUD",
    home="https://kalisteo.cea.fr/index.php/fallmud/#",
    licence="as stated on the home page",
    application="muscles",
    organ="lower leg muscle",
    view="longitudinal",
    categories=("aponeurosis", "fascicle"),
    group_key="block of 50 numbers of one laboratory (neighbours are frames of one video)",
    # The masks are JPEG files in part, whose borders leave specks of a few pixels at any threshold.
    # An image with one of its two masks is not wholly annotated and is left out too.
    rules=MaskRules(min_area=10, drop_empty=True),
    table1=(810, 1626),
    names=("*fallmud*",),
    unsure="which numbers belong to one subject or video",
)
_BLOCK = 50
_NAME = re.compile(r"\w*?(?P<number>\d+)")


def records(root: Path) -> Iterator[Record]:
    """Yield one record per image, without masks where it has one alone: the other structure would be missing."""
    for source in ("NeilCronin", "RyanCunningham"):
        for folder in find_folders(root, source):
            images = by_stem(folder / "images")
            aponeuroses, fascicles = by_stem(folder / "aponeurosis_masks"), by_stem(folder / "fascicle_masks")
            complete = sorted(aponeuroses.keys() & fascicles.keys())
            turns = _turns({stem: (images.get(stem), aponeuroses[stem]) for stem in complete}, folder)
            for stem in sorted({*images, *aponeuroses, *fascicles}):
                match = _NAME.fullmatch(stem)
                if match is None:
                    raise DataError(f"{folder}: names that end in a number were expected, found {stem!r}")
                masks = () if stem not in turns else (
                    ThresholdMask(aponeuroses[stem], "aponeurosis", turn=turns[stem]),
                    ThresholdMask(fascicles[stem], "fascicle"))
                yield Record(
                    key=f"{source}_{stem}",
                    image=ImageFile(images.get(stem, folder / "images" / f"{stem}.jpg")),
                    masks=masks,
                    group=f"{source}_{int(match['number']) // _BLOCK:03d}",
                )


def _turns(pairs: dict[str, tuple[Path | None, Path]], folder: Path) -> dict[str, int]:
    """Return the clockwise quarter turns that bring each mask of a folder over its image.

    The aponeurosis masks of one laboratory lie on their side. Only the size can tell; a square one is turned
    when the others of its folder are.

    Raises:
        DataError: a square mask among both kinds.
    """
    turns: dict[str, int] = {}
    square: list[str] = []
    for stem, (image, mask) in pairs.items():
        size, mask_size = _size(image), _size(mask)
        if size is not None and size == mask_size and size[0] == size[1]:
            square.append(stem)
        else:
            turns[stem] = int(size is not None and size != mask_size and size == mask_size[::-1])
    seen = set(turns.values())
    if square and len(seen) > 1:
        raise DataError(f"{folder}: square masks ({square[0]}, ...) were expected to lie as all others, but some masks "
                        "are turned and some are not; it cannot be told whether the square ones are turned")
    return turns | dict.fromkeys(square, max(seen, default=0))


def _size(path: Path | None) -> tuple[int, int]:
    """Return height and width; zeros for a file that cannot be read, which its conversion reports."""
    try:
        return (0, 0) if path is None else image_size(path)
    except DataError:
        return 0, 0


CONVERTER = Converter(INFO, records)
