"""Where an image comes from: a file, a frame of a volume or cine, a frame of a video."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from data_prep.records import OneFile
from ultrasam.errors import DataError
from ultrasam.io.images import read_image
from ultrasam.io.video import read_video
from ultrasam.io.volumes import Volume, frames_to_uint8, read_volume

# "file": the frames as they lie along the file's slowest axis (always so for a cine, whose axis is time).
# "sagittal": slices across left-right, head up and front to the left, by the directions of the header.
View = Literal["file", "sagittal"]
# Whether (rows, columns) of a frame are reversed.
Flips = tuple[bool, bool]


@dataclass(frozen=True)
class ImageFile(OneFile):
    """A raw file that holds one image.

    Attributes:
        path: the file.
        turn: clockwise turns by 90 degrees that make it upright.
    """

    turn: int = 0

    @property
    def copied(self) -> Path | None:
        """The file, where its bytes may become the converted image."""
        return None if self.turn % 4 else self.path

    def read(self) -> np.ndarray:
        """Return the image, uint8 H x W x 3 RGB."""
        return np.ascontiguousarray(np.rot90(read_image(self.path), -self.turn))


@dataclass(frozen=True)
class VolumeFrame(OneFile):
    """One frame of a volume or cine (MHA, MHD, NIfTI, NPY).

    Attributes:
        path: the file.
        index: number of the frame, from 0, along the first axis of the view.
        view: see `View`.
        flips: see `Flips`; image and labels must have the same.
    """

    index: int
    view: View = "file"
    flips: Flips = (False, False)
    copied: Path | None = None

    def read(self) -> np.ndarray:
        """Return the frame, uint8 H x W x 3 RGB; other types are scaled by the extremes of the whole volume."""
        frame = pick(intensities(self.path, self.view), self.index, self.path)
        if frame.ndim == 2 or frame.shape[2] == 1:
            frame = np.repeat(frame.reshape(*frame.shape[:2], 1), 3, axis=2)
        if frame.shape[2] != 3:
            raise DataError(f"{self.path}: 1 or 3 channels were expected, found {frame.shape[2]}")
        return flipped(frame, self.flips)


@dataclass(frozen=True)
class VideoFrame(OneFile):
    """One frame of a video file (AVI, MP4).

    Attributes:
        path: the file.
        index: number of the frame, from 0.
    """

    index: int
    copied: Path | None = None

    def read(self) -> np.ndarray:
        """Return the frame, uint8 H x W x 3 RGB."""
        return np.ascontiguousarray(pick(video_frames(self.path), self.index, self.path))


def volume(path: Path, view: View) -> Volume:
    """Return a volume in a view, kept for the next frame."""
    return _volume(path, view, _state(path))


def intensities(path: Path, view: View) -> np.ndarray:
    """Return the uint8 frames of a volume in a view, kept for the next frame."""
    return _intensities(path, view, _state(path))


def video_frames(path: Path) -> np.ndarray:
    """Return the frames of a video, kept for the next frame."""
    return _video_frames(path, _state(path))


def _state(path: Path) -> tuple[int, int] | None:
    """Return time and size of a file, so that a file that was replaced is read again; None when it is not there."""
    if not path.is_file():
        return None
    found = path.stat()
    return found.st_mtime_ns, found.st_size


# Frames of one file are converted one after the other, so that two files are enough: image and labels.
@lru_cache(maxsize=2)
def _volume(path: Path, view: View, _: tuple[int, int] | None) -> Volume:
    """Read a volume in a view."""
    return read_view(path, view)


@lru_cache(maxsize=1)
def _intensities(path: Path, view: View, _: tuple[int, int] | None) -> np.ndarray:
    """Return the uint8 frames of a volume in a view."""
    return frames_to_uint8(volume(path, view).array, path)


@lru_cache(maxsize=1)
def _video_frames(path: Path, _: tuple[int, int] | None) -> np.ndarray:
    """Read the frames of a video."""
    return read_video(path)


def pick(frames: np.ndarray, index: int, path: Path) -> np.ndarray:
    """Return one frame; DataError names the file when it does not exist. Negative numbers do not count backwards."""
    if not 0 <= index < len(frames):
        raise DataError(f"{path}: frame {index} (counted from 0) was expected, the file has {len(frames)} frames; "
                        "image and annotation may not belong together")
    return np.asarray(frames[index])


def flipped(frame: np.ndarray, flips: Flips) -> np.ndarray:
    """Return a frame (rows, columns, ...) with rows and columns reversed where asked, contiguous."""
    return np.ascontiguousarray(frame[::-1 if flips[0] else 1, ::-1 if flips[1] else 1])


def flips_of(found: Volume | None) -> Flips:
    """Return which axes of a volume's frames a viewer that goes by the header shows reversed.

    Viewers let rows run to the back or the feet and columns to the left or the back, so an axis that grows to
    the right, the front or the head is reversed.
    """
    if found is None:
        return False, False
    _, rows, columns = found.directions
    return rows in ("R", "A", "S"), columns in ("R", "A", "S")


def flip_attributes(flips: Flips) -> dict[str, object]:
    """Return what an image record says about reversed axes: nothing where none is."""
    names = [name for name, flip in zip(("rows", "columns"), flips, strict=True) if flip]
    return {"reversed_axes": names} if names else {}


def read_view(path: Path, view: View) -> Volume:
    """Read a volume in a view; DataError as `read_volume` and `sagittal`."""
    found = read_volume(path)
    return sagittal(found, path) if view == "sagittal" else found


def label_volume(path: Path, view: View = "file") -> Volume | None:
    """Return a label volume for finding its labelled frames; None where it is missing or unreadable.

    Its set then gives one record for the file all the same, so that the conversion names and counts the fault.
    Nothing is kept, since the search goes through all volumes before the first is converted.
    """
    try:
        return read_view(path, view)
    except DataError:
        return None


def labelled_frames(found: Volume | None, least: int = 1) -> list[int]:
    """Return the numbers of the frames with at least ``least`` labelled values; frame 0 of an unreadable file."""
    if found is None:
        return [0]
    return [number for number, frame in enumerate(found.array) if np.count_nonzero(frame) >= least]


def pixel_spacing(found: Volume | None) -> tuple[float, float] | None:
    """Return millimetres per pixel along (rows, columns) of a frame, where the header has them."""
    return None if found is None or found.spacing is None else found.spacing[1:]


def sagittal(found: Volume, path: Path) -> Volume:
    """Return the volume as sagittal slices: from right to left, rows from head to foot, columns from front to back.

    Raises:
        DataError: the header does not say where left, head and front are.
    """
    wanted = ("L", "I", "P")
    opposite = dict(zip("LRAPSI", "RLPAIS", strict=True))
    order, flips = [], []
    for letter in wanted:
        axis = next((number for number, name in enumerate(found.directions)
                     if name in (letter, opposite[letter])), None)
        if axis is None:
            raise DataError(f"{path}: a header that names left, head and front was expected, found the directions "
                            f"{found.directions}; a sagittal view cannot be told")
        order.append(axis)
        flips.append(found.directions[axis] != letter)
    array = found.array.transpose(*order, *range(3, found.array.ndim))
    array = array[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    spacing = None if found.spacing is None else (
        found.spacing[order[0]], found.spacing[order[1]], found.spacing[order[2]])
    return Volume(array, spacing, wanted)
