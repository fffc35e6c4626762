"""ASUS: bone surfaces in transverse scans along the spine, as NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.frames import pick, turn_180, volume
from data_prep.mask_shapes import VolumeLabels
from data_prep.records import Converter, DatasetInfo, Record
from ultrasam.errors import DataError

INFO = DatasetInfo(
    slug="asus",
    name="ASUS (automatic spine ultrasound segmentation)",
    home="https://onedrive.live.com/?authkey=%21AMIrL6S1cSjlo1I&id=7230D4DEC6058018%2191725&cid=7230D4DEC6058018",
    licence="not stated; cite the paper",
    application="spine",
    organ="spine",
    view="transverse",
    categories=("vertebral_surface",),
    group_key="scan (q<number> of the file name)",
    table1=(2864, 7887),
    names=("asus*",),
    unsure="whether images without a labelled surface are negatives; they are left out",
)
_IMAGES, _LABELS = "_ultrasound.npy", "_segmentation.npy"


@dataclass(frozen=True)
class UnitFrame:
    """One frame of an array of intensities from 0 to 1.

    The scale is known, so a dark scan stays dark: stretching it to its own extremes would change it.

    Attributes:
        path: the file, (frames, rows, columns, 1).
        index: number of the frame, from 0.
        frames: number of frames of the labels; None where it is not known.
    """

    path: Path
    index: int
    frames: int | None
    copied: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The one file read."""
        return (self.path,)

    def read(self) -> np.ndarray:
        """Return the frame turned by 180 degrees, uint8 H x W x 3 RGB."""
        array = volume(self.path, "file").array
        if self.frames not in (None, len(array)):
            raise DataError(f"{self.path}: {self.frames} frames were expected, as in its {_LABELS} file, found "
                            f"{len(array)}; get both files again")
        frame = pick(array, self.index, self.path)
        if frame.ndim == 3 and frame.shape[2] == 1:
            frame = frame[..., 0]
        # Not "outside 0 to 1": that would let NaN pass.
        if frame.ndim != 2 or not ((frame >= 0) & (frame <= 1)).all():
            raise DataError(f"{self.path}: frame {self.index}: one intensity from 0 to 1 per pixel was expected, found "
                            f"shape {frame.shape} and values from {frame.min()} to {frame.max()}")
        grey = np.rint(turn_180(frame, True).astype(np.float32) * 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)


def records(root: Path) -> Iterator[Record]:
    """Yield one record per frame with a labelled surface."""
    found = [path for path in root.rglob("*.npy") if "__MACOSX" not in path.parts]
    scans = {path.with_name(path.name.removesuffix(ending))
             for path in found for ending in (_IMAGES, _LABELS) if path.name.endswith(ending)}
    for scan in sorted(scans):
        images, labels = scan.with_name(scan.name + _IMAGES), scan.with_name(scan.name + _LABELS)
        frames, annotated = _annotated(labels)
        for index in annotated:
            yield Record(
                key=f"{scan.name}_{index:05d}",
                # The arrays hold the picture with the probe at the bottom and left and right exchanged.
                image=UnitFrame(images, index, frames),
                masks=(VolumeLabels(labels, index, {1: "vertebral_surface"}, turned=True),),
                group=scan.name.split("_")[0],
                frame=index,
            )


def _annotated(labels: Path) -> tuple[int | None, list[int]]:
    """Return the number of frames and those with a label; of an unreadable file the first one, to report it."""
    try:
        array = volume(labels, "file").array
    except DataError:
        return None, [0]
    return len(array), np.flatnonzero(array.reshape(len(array), -1).any(axis=1)).tolist()


CONVERTER = Converter(INFO, records)
