"""What every opened ultrasound file offers: its frames on demand, its size and, where known, its millimetres."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ultrasam.errors import DataError

Kind = Literal["image", "dicom", "volume", "video", "array"]
Frame = NDArray[np.uint8]


def stem_of(name: str) -> str:
    """Return a file's name without its suffix, ".nii.gz" as one; numbers of DICOM names (1.2.840.113) are no suffix."""
    name = name[:-3] if name.lower().endswith(".nii.gz") else name
    suffix = Path(name).suffix[1:]
    return Path(name).stem if suffix and not suffix.isdigit() else name


class Scan(ABC):
    """An ultrasound file, opened. Frames are read when they are asked for.

    Attributes:
        path: the file; None for arrays and for bytes.
        name: the file's name, for messages and the names of results.
        kind: what it was read as.
        frames: number of frames, at least 1. Of a volume these are the slices along the file's slowest axis.
        size: (height, width) of a frame in pixels.
        spacing: millimetres along (rows, columns); None where the file does not say.
        rate: frames per second of a cine; None where the file does not say.
        header: what the file says of itself, kept so that masks can be written in its geometry: a pydicom data set
            without pixels, an `ultrasam.io.volumes.Volume` without its array, else None.
    """

    path: Path | None = None
    name: str = ""
    kind: Kind = "image"
    frames: int = 1
    size: tuple[int, int] = (0, 0)
    spacing: tuple[float, float] | None = None
    rate: float | None = None
    header: Any = None

    @property
    def stem(self) -> str:
        """The name without its suffix, from which results are named; see `stem_of`."""
        return stem_of(self.name)

    def read(self, frame: int = 0) -> Frame:
        """Return a frame, uint8 (height, width, 3) RGB.

        Args:
            frame: its number from 0.

        Raises:
            DataError: there is no such frame, or it is damaged.
        """
        if isinstance(frame, bool) or not isinstance(frame, (int, np.integer)) or not 0 <= frame < self.frames:
            last = f"0 to {self.frames - 1}" if self.frames > 1 else "0 only"
            raise DataError(f"{self.name} has the frames {last}, found {frame!r}; give one of these")
        return self._read(int(frame))

    @abstractmethod
    def _read(self, frame: int) -> Frame:
        """Return a frame that exists."""

    def iterate(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Yield the frames from `start` up to but without `stop` (the end) in order, one held at a time.

        Raises:
            DataError: a frame is damaged; those before it have been yielded.
        """
        for frame in range(start, self.frames if stop is None else min(stop, self.frames)):
            yield self.read(frame)

    def __iter__(self) -> Iterator[Frame]:
        return self.iterate()

    def __len__(self) -> int:
        return self.frames

    def close(self) -> None:
        """Let go of the file; a later read opens it again."""
        return

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Scan {self.name!r}: {self.kind}, {self.frames} x {self.size[0]} x {self.size[1]}>"


class FramesScan(Scan):
    """A scan whose frames are all in memory: images, arrays and volumes."""

    def __init__(
        self,
        frames: Frame,
        *,
        name: str,
        kind: Kind,
        path: Path | None = None,
        spacing: tuple[float, float] | None = None,
        header: Any = None,
    ) -> None:
        """Keep frames.

        Args:
            frames: uint8 (frames, height, width) grey or (frames, height, width, 3) RGB.
            name: see `Scan`, as for the other arguments.
            kind: as above.
            path: as above.
            spacing: as above.
            header: as above.
        """
        self._frames = frames
        self.path, self.name, self.kind, self.spacing, self.header = path, name, kind, spacing, header
        self.frames, self.size = frames.shape[0], (frames.shape[1], frames.shape[2])

    def _read(self, frame: int) -> Frame:
        pixels = self._frames[frame]
        return np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels.copy()
