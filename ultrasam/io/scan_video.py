"""Videos as a scan: any frame, without holding them all."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ultrasam.errors import DataError
from ultrasam.io.images import MAX_PIXELS
from ultrasam.io.scan_base import Frame, Scan
from ultrasam.io.video import Source, iterate_video, video_facts

# Frames that were decoded on the way to another are kept up to this size, so that going backwards through a cine does
# not decode everything before each frame anew.
KEPT_BYTES = 96 << 20
# Forwards, it is faster to decode up to so many frames than to look for a nearer starting point.
_FORWARD = 64


class VideoScan(Scan):
    """A video file. Frames are numbered in the order of presentation."""

    kind = "video"

    def __init__(self, source: Source, name: str) -> None:
        """Count the frames, without decoding them where the container can be trusted.

        Args:
            source: the file, or what is in it.
            name: the file's name.

        Raises:
            DataError: it is no video, or damaged where that can be seen without decoding.
        """
        self._source, self.name = source, name
        self.path = source if isinstance(source, Path) else None
        facts = video_facts(source, name)
        self.frames, self.size, self.rate = facts.frames, facts.size, facts.rate
        if self.size[0] * self.size[1] > MAX_PIXELS:
            raise DataError(f"{name} claims {self.size[0]} x {self.size[1]} pixels, more than the {MAX_PIXELS} that "
                            "are accepted; crop or reduce it")  # fmt: skip
        self._number_of = {stamp: number for number, stamp in enumerate(facts.stamps)}
        self._stamps = facts.stamps
        self._kept: OrderedDict[int, Frame] = OrderedDict()
        self._room = max(1, KEPT_BYTES // (3 * self.size[0] * self.size[1]))
        self._lock = threading.Lock()
        self._container: Any = None
        self._decoder: Iterator[Any] | None = None
        self._next = 0

    def iterate(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Yield frames in order from a decoder of their own; see `Scan.iterate`."""
        end = self.frames if stop is None else min(stop, self.frames)
        if start > 0:
            yield from super().iterate(start, end)
            return
        number = 0
        for number, frame in enumerate(iterate_video(self._source, self.name), 1):
            if number > end:
                return
            yield self._checked(frame)
        if number < end:
            raise self._missing(number)

    def close(self) -> None:
        """Let go of the file; a later read opens it again."""
        with self._lock:
            self._stop()

    def _read(self, frame: int) -> Frame:
        import av

        with self._lock:
            if frame not in self._kept:
                try:
                    self._decode_to(frame)
                except av.error.FFmpegError as error:
                    self._stop()
                    raise DataError(f"{self.path or self.name}: a readable video was expected, found damage near frame "
                                    f"{self._next} ({error.strerror}); get it again") from error  # fmt: skip
            self._kept.move_to_end(frame)
            return self._kept[frame].copy()

    def _decode_to(self, frame: int) -> None:
        if self._decoder is None or not self._next <= frame < self._next + _FORWARD:
            self._start_near(frame)
        assert self._decoder is not None
        for decoded in self._decoder:
            number = self._next
            if self._stamps and self._number_of.get(decoded.pts) != number:
                # Time stamps that do not tell the order: from now on every search begins at the first frame.
                self._stamps = []
                self._stop()
                self._decode_to(frame)
                return
            self._next += 1
            if frame - number < self._room:
                self._keep(number, decoded)
            if number == frame:
                return
        raise self._missing(self._next)

    def _start_near(self, frame: int) -> None:
        """Start decoding at the first frame, or, where time stamps tell the order, at a starting point before."""
        self._stop()
        self._open()
        if not self._stamps or frame < _FORWARD:
            return
        self._container.seek(self._stamps[frame], stream=self._container.streams.video[0], backward=True)
        frames = self._container.decode(video=0)
        first = next(frames, None)
        number = None if first is None else self._number_of.get(first.pts)
        if number is None or number > frame:
            self._stop()
            self._open()
            return
        self._next, self._decoder = number, _chained(first, frames)

    def _open(self) -> None:
        import av

        source = str(self._source) if isinstance(self._source, Path) else io.BytesIO(self._source)
        self._container = av.open(source)
        self._decoder, self._next = self._container.decode(video=0), 0

    def _stop(self) -> None:
        if self._container is not None:
            self._container.close()
        self._container, self._decoder = None, None

    def _keep(self, number: int, decoded: Any) -> None:
        self._kept[number] = self._checked(decoded.to_ndarray(format="rgb24"))
        self._kept.move_to_end(number)
        while len(self._kept) > self._room:
            self._kept.popitem(last=False)

    def _checked(self, frame: Frame) -> Frame:
        if frame.shape[:2] != self.size:
            raise DataError(f"{self.path or self.name}: frames of one size were expected, found the sizes (height, "
                            f"width) {self.size} and {frame.shape[:2]}")  # fmt: skip
        return frame

    def _missing(self, found: int) -> DataError:
        return DataError(f"{self.path or self.name}: {self.frames} frames were expected, found {found}, the file is "
                         "cut off; get it again")  # fmt: skip


def _chained(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest
