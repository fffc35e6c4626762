"""FASS: structures of the fetal abdomen, as pickled dictionaries of masks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.frames import ImageFile
from data_prep.listing import by_stem, find_folders
from data_prep.records import Converter, DatasetInfo, OneFile, Record
from data_prep.restricted_pickle import read_pickled_dict
from ultrasam.errors import DataError

INFO = DatasetInfo(
    slug="fass",
    name="FASS (fetal abdominal structures segmentation)",
    home="https://data.mendeley.com/datasets/4gcpm9dsc3/1",
    licence="as stated on the Mendeley page",
    application="fetal abdomen",
    organ="fetal abdomen",
    view="transverse",
    categories=("artery", "liver", "stomach", "vein"),
    group_key="patient (P<number> of the file name)",
    expected={"images": 1588},
    table1=(1588, 6383),
    names=("*fetal?abdominal?structures*", "fass*", "*4gcpm9dsc3*"),
)
_NAME = re.compile(r"(?P<patient>P\w+?)_IMG\w+")


@dataclass(frozen=True)
class StructureArrays(OneFile):
    """The masks under ``structures`` of a pickled dictionary; they may overlap.

    Attributes:
        path: the .npy file.
    """

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return one bool height x width mask per structure present, by name."""
        structures = read_pickled_dict(self.path).get("structures")
        if not isinstance(structures, dict) or structures.keys() - set(INFO.categories):
            names = sorted(structures) if isinstance(structures, dict) else type(structures).__name__
            raise DataError(f"{self.path}: the structures {list(INFO.categories)} were expected, found {names}")
        masks = []
        for name, values in sorted(structures.items()):
            if not isinstance(values, np.ndarray) or values.shape != (height, width) or not np.isin(
                    values, (0, 1)).all():
                found = f"{values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
                raise DataError(f"{self.path}: {name}: zeros and ones of shape {(height, width)}, as the image, were "
                                f"expected, found another content (shape {found})")
            if values.any():
                masks.append((name, values > 0))
        return masks


def records(root: Path) -> Iterator[Record]:
    """Yield one record per name in the two folders."""
    for folder in sorted({path.parent for path in find_folders(root, "ARRAY_FORMAT", "IMAGES")}):
        images, arrays = folder / "IMAGES", folder / "ARRAY_FORMAT"
        for stem in sorted({*by_stem(images), *by_stem(arrays, (".npy",))}):
            match = _NAME.fullmatch(stem)
            if match is None:
                raise DataError(f"{folder}: names P<patient>_IMG<number> were expected, found {stem!r}")
            yield Record(
                key=stem,
                image=ImageFile(images / f"{stem}.png"),
                masks=(StructureArrays(arrays / f"{stem}.npy"),),
                group=match["patient"],
            )


CONVERTER = Converter(INFO, records)
