"""STMUS_NDA: cross-sections of three muscles of healthy people and patients."""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.mask_files import BinaryMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from ultrasam.errors import DataError
from ultrasam.io.images import read_mask

_MUSCLES = {"BB": "biceps_brachii", "GM": "gastrocnemius_medialis", "TA": "tibialis_anterior"}
_STATES = ("Healthy", "Pathological")

INFO = DatasetInfo(
    slug="stmus_nda",
    name="STMUS_NDA",
    home="https://data.mendeley.com/datasets/3jykz7wz8d/1",
    licence="CC BY 4.0, cite the paper",
    application="muscles",
    organ="muscle",
    view="transverse",
    categories=tuple(_MUSCLES.values()),
    group_key="first number in the file name",
    official_split="train, val and test folders of MuscleCNN (kept as an attribute where the name is unique)",
    rules=MaskRules(split_components=False, fill_holes=True),
    table1=(4355, 4368),
    names=("*stmus*", "*transverse?musculoskeletal*", "*polito-radboud*", "*3jykz7wz8d*"),
    unsure="where in the file name the subject stands",
)


def records(root: Path) -> Iterator[Record]:
    """Yield one record per name of each muscle and state, unless its mask is empty: a muscle is in every image."""
    found = [(muscle, state, folder, name) for muscle in _MUSCLES for state in _STATES
             for folder in _folders(root, muscle, state) for name in _names(folder)]
    repeated = Counter(Path(name).stem for *_, name in found)
    sides = _official(root)
    empty = 0
    for muscle, state, folder, name in found:
        image, mask, stem = folder / "Images" / name, folder / "Masks" / name, Path(name).stem
        if _is_empty(mask):
            empty += 1
            continue
        # The folders of the split are one for all muscles, so a repeated name says nothing there.
        known = sides.get(stem, set()) if repeated[stem] == 1 else set()
        number = re.search(r"\d+", stem)
        yield Record(
            # Muscles and states may have the same names.
            key=f"{muscle}_{state.lower()}_{re.sub(r'[^A-Za-z0-9_.+-]', '-', stem)}",
            image=ImageFile(image),
            masks=(BinaryMask(mask, _MUSCLES[muscle]),),
            group=number[0] if number else stem,
            label=state.lower(),
            attributes={"official_split": next(iter(known))} if len(known) == 1 else {},
        )
    if empty:
        print(f"{INFO.slug}: {empty} images have an empty mask and are left out", file=sys.stderr)


def _folders(root: Path, muscle: str, state: str) -> list[Path]:
    """Return the folders of a muscle and state."""
    parents = {path.parent for kind in ("Images", "Masks") for path in root.rglob(f"{muscle}/{state}/{kind}")}
    return sorted(path for path in parents if "__MACOSX" not in path.parts)


def _names(folder: Path) -> list[str]:
    """Return the names of the images and masks of a folder."""
    return sorted({path.name for kind in ("Images", "Masks") for path in (folder / kind).glob("[!.]*.png")})


def _official(root: Path) -> dict[str, set[str]]:
    """Return the sides of the official split by file name without suffix."""
    sides: dict[str, set[str]] = defaultdict(set)
    for side in ("train", "val", "test"):
        for path in root.rglob(f"MuscleCNN/{side}/[!.]*.png"):
            sides[path.stem].add(side)
    return sides


def _is_empty(mask: Path) -> bool:
    """Whether a mask is all zero; not so for one that cannot be read, which its conversion reports."""
    try:
        return mask.is_file() and not read_mask(mask).any()
    except DataError:
        return False


CONVERTER = Converter(INFO, records)
