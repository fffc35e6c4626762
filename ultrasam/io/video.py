"""Reading the frames of AVI, MP4 and other video files, through PyAV."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrasam.errors import DataError
from ultrasam.io.files import require_content

Source = Path | bytes

VIDEO_SUFFIXES = (".avi", ".mp4", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")


def is_video(path: Path) -> bool:
    """Whether the file's name is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def iterate_video(source: str | Path | bytes, name: str = "") -> Iterator[NDArray[np.uint8]]:
    """Yield every frame in the order of presentation, uint8 (H, W, 3) RGB.

    Args:
        source: the file, or what is in it.
        name: names `source` in errors where it is bytes.

    Raises:
        DataError: missing, empty, damaged or not a video, also when the damage comes after good frames.
    """
    import av

    source, where = _existing(source, name)
    count, stated = 0, 0
    try:
        with _opened(source) as container:
            if not container.streams.video:
                raise DataError(f"{where}: a video was expected, found a file without pictures")
            stated = container.streams.video[0].frames
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
                count += 1
    except av.error.FFmpegError as error:
        raise DataError(f"{where}: a readable video was expected, found damage after {count} frames "
                        f"({error.strerror}); get it again") from error  # fmt: skip
    if count == 0:
        raise DataError(f"{where}: a video was expected, found no frame in it; get it again")
    if count < stated and _is_cut_off(source):
        raise DataError(f"{where}: {stated} frames were expected, found {count}, the file is cut off; get it again")


@dataclass(frozen=True)
class VideoFacts:
    """What a container says of its video.

    Attributes:
        frames: their number.
        size: (height, width) in pixels.
        rate: frames per second, None where it is not said.
        stamps: the time of every frame in the stream's units, rising; empty where they do not tell frames apart.
    """

    frames: int
    size: tuple[int, int]
    rate: float | None
    stamps: list[int]


def frame_count(path: str | Path) -> int:
    """Return the number of frames, counted in the container without decoding them.

    Raises:
        DataError: missing, empty, damaged or not a video.
    """
    return video_facts(path).frames


def video_facts(source: str | Path | bytes, name: str = "") -> VideoFacts:
    """Read the facts from the container; frames are decoded only where its own count contradicts its packets.

    Args:
        source: the file, or what is in it.
        name: names `source` in errors where it is bytes.

    Raises:
        DataError: missing, empty, damaged, cut off or not a video.
    """
    import av

    source, where = _existing(source, name)
    try:
        with _opened(source) as container:
            if not container.streams.video:
                raise DataError(f"{where}: a video was expected, found a file without pictures")
            stream: Any = container.streams.video[0]
            size, rate, stated = (stream.height, stream.width), stream.average_rate, stream.frames
            packets = [(packet.pts, packet.is_discard) for packet in container.demux(video=0) if packet.size > 0]
    except av.error.FFmpegError as error:
        raise DataError(
            f"{where}: a readable video was expected, found damage ({error.strerror}); get it again"
        ) from error
    stamps = [stamp for stamp, discarded in packets if not discarded]
    count = len(stamps)
    if count < stated and _is_cut_off(source):
        raise DataError(f"{where}: {stated} frames were expected, found {count}, the file is cut off; get it again")
    if stated and stated != count:
        count, stamps = sum(1 for _ in iterate_video(source, name)), []
    if count == 0 or min(size) < 1:
        raise DataError(f"{where}: a video was expected, found no frame in it; get it again")
    whole = None not in stamps and len(set(stamps)) == len(stamps)
    return VideoFacts(count, size, float(rate) if rate else None, sorted(stamps) if whole else [])


def _existing(source: str | Path | bytes, name: str) -> tuple[Source, Path]:
    """Return the source and what names it; DataError when there is no file or nothing in it."""
    if isinstance(source, bytes):
        require_content(source[:500], Path(name))
        return source, Path(name)
    path = Path(source)
    if not path.is_file():
        raise DataError(f"{path} does not exist; check the path and the data root")
    with path.open("rb") as stream:
        require_content(stream.read(500), path)
    return path, path


def _opened(source: Source) -> Any:
    import av

    return av.open(str(source) if isinstance(source, Path) else io.BytesIO(source))


def _is_cut_off(source: Source) -> bool:
    """Whether an AVI or MP4 file is shorter than it says itself; the decoder just stops there."""
    size = source.stat().st_size if isinstance(source, Path) else len(source)
    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as stream:
        head = stream.read(12)
        if head[:4] == b"RIFF":
            return 8 + int.from_bytes(head[4:8], "little") > size
        place = 0
        while head[4:8] == b"ftyp" and place < size:
            stream.seek(place)
            box = stream.read(16)
            length = int.from_bytes(box[:4], "big")
            length = int.from_bytes(box[8:], "big") if length == 1 else length or size - place  # 0: to the end
            place += max(length, 8)
    return place > size


def read_video(path: str | Path) -> NDArray[np.uint8]:
    """Read every frame: uint8 (frames, H, W, 3) RGB.

    Raises:
        DataError: as `iterate_video`, or its frames have several sizes.
    """
    frames = list(iterate_video(path))
    sizes = sorted({frame.shape[:2] for frame in frames})
    if len(sizes) > 1:
        raise DataError(f"{path}: frames of one size were expected, found the sizes (height, width) {sizes[:4]}")
    return np.stack(frames)
