"""Stanford Thyroid Ultrasound Cine-clip: nodules in every frame of clips of 167 patients, in one HDF5 file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.mask_files import two_valued
from data_prep.records import Converter, DatasetInfo, MaskRules, OneFile, Record
from data_prep.sources import find_one
from data_prep.tables import read_csv
from ultrasam.errors import DataError

INFO = DatasetInfo(
    slug="thyroid_cineclip",
    name="Stanford Thyroid Ultrasound Cine-clip",
    home="https://stanfordaimi.azurewebsites.net/datasets/a72f2b02-7b53-4c5d-963c-d7253220bfd5",
    licence="Stanford research use agreement, non-commercial",
    application="thyroid nodules",
    organ="thyroid",
    categories=("thyroid_nodule",),
    group_key="patient (annot_id before the underscore)",
    expected={"images": 17412, "groups": 167},
    rules=MaskRules(fill_holes=True),
    table1=(17412, 17412),
    view="thyroid",
    names=("*cineclip*", "*cine-clip*", "*cine_clip*"),
    access="Stanford AIMI (now on Redivis) gives dataset.hdf5 and metadata.csv to those who accept its agreement.",
)

_PATHOLOGY = {"0": "benign", "1": "malignant", "0.0": "benign", "1.0": "malignant", "": None}


@dataclass(frozen=True)
class Hdf5Frame(OneFile):
    """One frame of the ``image`` array.

    Attributes:
        path: the HDF5 file.
        index: row of its arrays, from 0.
    """

    index: int
    copied: Path | None = None

    def read(self) -> np.ndarray:
        """Return the frame, uint8 H x W x 3 RGB; DataError for other depths, which would need a scale."""
        frame = _row(self.path, "image", self.index)
        if frame.dtype != np.uint8 or (frame.ndim == 3 and frame.shape[2] not in (1, 3)) or frame.ndim not in (2, 3):
            raise DataError(f"{self.path}: 8-bit frames (height, width) were expected in image, found "
                            f"{frame.dtype} {frame.shape} in row {self.index}; use the original file")
        grey = frame.ndim == 2 or frame.shape[2] == 1
        return np.ascontiguousarray(np.repeat(frame.reshape(*frame.shape[:2], 1), 3, axis=2) if grey else frame)


@dataclass(frozen=True)
class Hdf5Mask(OneFile):
    """One frame of the ``mask`` array: 0 and 255.

    Attributes:
        path: the HDF5 file.
        index: row of its arrays, from 0.
    """

    index: int

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return the nodule as one bool height x width mask; DataError for any third value."""
        values = _row(self.path, "mask", self.index)
        if values.ndim == 3 and values.shape[2] == 1:
            values = values[..., 0]
        if values.shape != (height, width):
            raise DataError(f"{self.path}: a mask of the image's shape {(height, width)} was expected, found "
                            f"{values.shape} in row {self.index}; use the original file")
        return [("thyroid_nodule", two_valued(values, f"{self.path}: row {self.index}"))]


def records(root: Path) -> Iterator[Record]:
    """Yield one record per frame; images and masks stay in the file until they are converted."""
    path = find_one(root, "dataset.hdf5")
    table = find_one(root, "metadata.csv")
    rows = read_csv(table, ("annot_id", "histopath_diagnosis"), key="annot_id")
    names, numbers = _column(path, "annot_id"), _column(path, "frame_num")
    if len(names) != len(numbers):
        raise DataError(f"{path}: annot_id and frame_num of one length were expected, found {len(names)} and "
                        f"{len(numbers)}; use the original file")
    for index, (name, number) in enumerate(zip(names, numbers, strict=True)):
        match = re.fullmatch(r"(\d+)_\w*", name)
        if match is None or not number.strip("_").isdigit():
            raise DataError(f"{path}: row {index}: an annot_id like '12_' and a frame number were expected, found "
                            f"{name!r} and {number!r}; use the original file")
        if name not in rows or rows[name]["histopath_diagnosis"].strip() not in _PATHOLOGY:
            raise DataError(f"{table}: a line for annot_id {name!r} with histopath_diagnosis 0 or 1 was expected, "
                            f"found {rows.get(name)}; take both files from one download")
        frame = int(number.strip("_"))
        yield Record(f"{name.strip('_')}_{frame:05d}", Hdf5Frame(path, index), (Hdf5Mask(path, index),),
                     group=match.group(1), frame=frame,
                     label=_PATHOLOGY[rows[name]["histopath_diagnosis"].strip()])


def _column(path: Path, name: str) -> list[str]:
    """Return a small array of the file as texts."""
    values = _read(path, name, slice(None)).reshape(-1).tolist()
    return [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values]


def _row(path: Path, name: str, index: int) -> np.ndarray:
    """Return one row of an array of the file."""
    return _read(path, name, index)


def _read(path: Path, name: str, rows: int | slice) -> np.ndarray:
    """Return rows of an array of the file; DataError when it is not there or the file is damaged."""
    try:
        return np.asarray(_open(path, path.stat().st_mtime_ns)[name][rows])
    except (OSError, KeyError, ValueError, IndexError, RuntimeError) as error:
        raise DataError(f"{path}: an HDF5 file with the arrays image, mask, annot_id and frame_num was expected, "
                        f"reading {name} failed ({error}); get the file again") from error


@lru_cache(maxsize=1)
def _open(path: Path, modified: int) -> Any:
    """Return the open file, kept for the next frame: opening it takes longer than reading a frame.

    Args:
        path: the file.
        modified: time of its last change, so that a file replaced in the meantime is opened anew.
    """
    import h5py  # Slow to import, and only this set needs it.

    return h5py.File(path, "r")


CONVERTER = Converter(INFO, records)
