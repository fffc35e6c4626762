"""ASUS: bone surfaces in transverse scans along the spine, as NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.frames import Flips, flipped, label_volume, labelled_frames, pick, volume
from data_prep.listing import find_files
from data_prep.mask_shapes import VolumeLabels
from data_prep.records import Converter, DatasetInfo, OneFile, Record
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
# The arrays hold the picture with the probe at the bottom and left and right exchanged.
_FLIPS: Flips = (True, True)


@dataclass(frozen=True)
class UnitFrame(OneFile):
    """One frame of an array of intensities from 0 to 1.

    The scale is known, so a dark scan stays dark: stretching it to its own extremes would change it.

    Attributes:
        path: the file, (frames, rows, columns, 1).
        index: number of the frame, from 0.
        frames: number of frames of the labels; None where it is not known.
    """

    index: int
    frames: int | None
    copied: Path | None = None

    def read(self) -> np.ndarray:
        """Return the frame, upright, uint8 H x W x 3 RGB."""
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
        grey = np.rint(flipped(frame, _FLIPS).astype(np.float32) * 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)


def records(root: Path) -> Iterator[Record]:
    """Yield one record per frame with a labelled surface."""
    scans = {path.with_name(path.name.removesuffix(ending))
             for path in find_files(root, "*.npy") for ending in (_IMAGES, _LABELS) if path.name.endswith(ending)}
    for scan in sorted(scans):
        images, labels = scan.with_name(scan.name + _IMAGES), scan.with_name(scan.name + _LABELS)
        found = label_volume(labels)
        for index in labelled_frames(found):
            yield Record(
                key=f"{scan.name}_{index:05d}",
                image=UnitFrame(images, index, None if found is None else len(found.array)),
                masks=(VolumeLabels(labels, index, {1: "vertebral_surface"}, flips=_FLIPS),),
                group=scan.name.split("_")[0],
                frame=index,
            )


CONVERTER = Converter(INFO, records)
