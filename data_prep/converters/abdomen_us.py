"""AbdomenUS: abdominal organs of eleven volunteers; the simulated part of the set is not used."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.mask_files import ColourMask
from data_prep.records import Converter, DatasetInfo, Record
from ultrasam.errors import DataError

# RGB, as the authors give them. Read as BGR, kidney and adrenal gland, pancreas and vessel change places.
_COLOURS = {
    "liver": (100, 0, 100), "kidney": (255, 255, 0), "pancreas": (0, 0, 255), "vessel": (255, 0, 0),
    "adrenal_gland": (0, 255, 255), "gallbladder": (0, 255, 0), "bone": (255, 255, 255), "spleen": (255, 0, 255),
}
_SUFFIXES = (".png", ".jpg", ".jpeg")

INFO = DatasetInfo(
    slug="abdomen_us",
    name="AbdomenUS (US simulation & segmentation)",
    home="https://www.kaggle.com/datasets/ignaciorlando/ussimandsegm",
    licence="as stated on the Kaggle page (Open Data Research Grant)",
    application="abdomen",
    organ="abdominal organs",
    view="various",
    categories=tuple(_COLOURS),
    group_key="image (the subject is not known)",
    official_split="train and test folders (kept as an attribute)",
    table1=(60, 89),
    names=("*ussimandsegm*", "*abdominal_us*", "*abdomen?us*", "*abdomenus*"),
    access="needs a Kaggle account",
    unsure="how many images have an annotation, and how the files are named",
)


def records(root: Path) -> Iterator[Record]:
    """Yield one record per annotation of a real image; images without one are left out, as they may hold organs.

    The simulated images (folder AUS) are no ultrasound.
    """
    unlabelled = 0
    for labels in sorted(root.rglob("RUS/annotations")):
        if "__MACOSX" in labels.parts:
            continue
        pictures = labels.with_name("images")
        for side in sorted({path.name for path in (*labels.iterdir(), *pictures.glob("*")) if path.is_dir()}):
            masks, images = _by_stem(labels / side), _by_stem(pictures / side)
            unlabelled += len(images.keys() - masks.keys())
            for stem, mask in masks.items():
                yield Record(
                    # Stems may repeat over the two sides.
                    key=f"{side}_{stem}",
                    image=ImageFile(images.get(stem, pictures / side / f"{stem}.png")),
                    masks=(ColourMask(mask, _COLOURS, tolerance=10),),
                    group=f"{side}_{stem}",
                    attributes={"official_split": side},
                )
    if unlabelled:
        print(f"{INFO.slug}: {unlabelled} real images have no annotation and are left out", file=sys.stderr)


def _by_stem(folder: Path) -> dict[str, Path]:
    """Return the pictures of a folder by name without suffix, sorted; DataError for two of one stem."""
    paths = sorted(folder.glob("[!.]*"))
    found: dict[str, Path] = {}
    for path in paths:
        if path.suffix.lower() not in _SUFFIXES:
            continue
        if path.stem in found:
            raise DataError(f"{path}: one picture {path.stem} was expected, found also {found[path.stem].name}; "
                            "remove one of them")
        found[path.stem] = path
    return found


CONVERTER = Converter(INFO, records)
