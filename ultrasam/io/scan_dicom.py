"""DICOM as a scan: frames are decoded one at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrasam.io.dicom import (
    Source,
    decode_frames,
    frame_rate,
    frame_total,
    invert,
    is_inverted,
    pixel_spacing,
    read_header,
)
from ultrasam.io.scan_base import Frame, Scan
from ultrasam.io.volumes import frames_to_uint8


class DicomScan(Scan):
    """A DICOM file with one or more frames.

    Values of more than 8 bits are scaled by the smallest and largest value of the whole file, for which all frames
    are decoded once, so that frames stay comparable.
    """

    kind = "dicom"

    def __init__(self, source: Source, name: str) -> None:
        """Read the header.

        Args:
            source: the file, or what is in it.
            name: the file's name.

        Raises:
            DataError: it is no DICOM file with pixels that can be shown.
        """
        self._source, self.name = source, name
        self.path = source if isinstance(source, Path) else None
        self.header = read_header(source, name)
        self.frames = frame_total(self.header)
        self.size = (int(self.header.Rows), int(self.header.Columns))
        self.spacing, self.rate = pixel_spacing(self.header), frame_rate(self.header)
        self._found: tuple[int, int] | None = None

    def _read(self, frame: int) -> Frame:
        with closing(self._decode([frame])) as decoded:
            return self._shown(next(decoded))

    def iterate(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Yield frames in order from one pass over the file; see `Scan.iterate`."""
        end = self.frames if stop is None else min(stop, self.frames)
        with closing(self._decode(range(start, end))) as decoded:
            for pixels in decoded:
                yield self._shown(pixels)

    def _decode(self, indices: Any = None) -> Generator[NDArray[Any], None, None]:
        return decode_frames(self._source, self.header, self.name, indices)

    def _shown(self, pixels: NDArray[Any]) -> Frame:
        """Return decoded values as uint8 RGB."""
        eight = pixels.dtype == np.uint8
        low, high = (0, 255) if eight else self._span()
        if is_inverted(self.header):
            pixels = invert(pixels, low, high)
        shown = pixels if eight else frames_to_uint8(pixels, self.path or self.name, (low, high))
        return np.repeat(shown[:, :, None], 3, axis=2) if shown.ndim == 2 else np.ascontiguousarray(shown)

    def _span(self) -> tuple[int, int]:
        """Smallest and largest value of all frames."""
        if self._found is None:
            ends = [(int(pixels.min()), int(pixels.max())) for pixels in self._decode()]
            self._found = min(low for low, _ in ends), max(high for _, high in ends)
        return self._found
