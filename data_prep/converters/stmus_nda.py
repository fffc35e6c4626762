"""STMUS_NDA: cross-sections of three muscles of healthy people and patients."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.listing import by_stem, files_below, find_folders, paired
from data_prep.mask_files import BinaryMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record

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
    # There is a muscle in every image.
    rules=MaskRules(split_components=False, fill_holes=True, drop_empty=True),
    table1=(4355, 4368),
    names=("*stmus*", "*transverse?musculoskeletal*", "*polito-radboud*", "*3jykz7wz8d*"),
    unsure="where in the file name the subject stands",
)


def records(root: Path) -> Iterator[Record]:
    """Yield one record per name of each muscle and state."""
    found = [(muscle, state, *pair) for muscle in _MUSCLES for state in _STATES
             for folder in _folders(root, muscle, state)
             for pair in paired(folder / "Images", folder / "Masks", by_stem)]
    repeated = Counter(stem for _, _, stem, _, _ in found)
    sides = _official(root)
    for muscle, state, stem, image, mask in found:
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


def _folders(root: Path, muscle: str, state: str) -> list[Path]:
    """Return the folders of a muscle and state."""
    place = f"{muscle}/{state}"
    return sorted({path.parent for path in find_folders(root, f"{place}/Images", f"{place}/Masks")})


def _official(root: Path) -> dict[str, set[str]]:
    """Return the sides of the official split by file name without suffix."""
    sides: dict[str, set[str]] = defaultdict(set)
    for side in ("train", "val", "test"):
        for path in files_below(root, f"MuscleCNN/{side}/*.png"):
            sides[path.stem].add(side)
    return sides


CONVERTER = Converter(INFO, records)
