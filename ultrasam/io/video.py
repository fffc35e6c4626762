"""Reading the frames of AVI, MP4 and other video files, through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ultrasam.errors import DataError
from ultrasam.io.files import require_content

VIDEO_SUFFIXES = (".avi", ".mp4", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")


def is_video(path: Path) -> bool:
    """Whether the file's name is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def iterate_video(path: str | Path) -> Iterator[NDArray[np.uint8]]:
    """Yield every frame in the order of presentation, uint8 (H, W, 3) RGB.

    Raises:
        DataError: missing, empty, damaged or not a video, also when the damage comes after good frames.
    """
    import av

    path = _existing(path)
    count, stated = 0, 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path}: a video was expected, found a file without pictures")
            stated = container.streams.video[0].frames
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
                count += 1
    except av.error.FFmpegError as error:
        raise DataError(
            f"{path}: a readable video was expected, found damage after {count} frames ({error.strerror}); get it again"
        ) from error
    if count == 0:
        raise DataError(f"{path}: a video was expected, found no frame in it; get it again")
    if count < stated and _is_cut_off(path):
        raise DataError(f"{path}: {stated} frames were expected, found {count}, the file is cut off; get it again")


def _existing(path: str | Path) -> Path:
    """Return the path; DataError when there is no file or nothing in it."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; check the path and the data root")
    with path.open("rb") as stream:
        require_content(stream.read(500), path)
    return path


def frame_count(path: str | Path) -> int:
    """Return the number of frames, counted in the container without decoding them.

    Raises:
        DataError: missing, empty, damaged or not a video.
    """
    import av

    path = _existing(path)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path}: a video was expected, found a file without pictures")
            return sum(packet.size > 0 for packet in container.demux(video=0))
    except av.error.FFmpegError as error:
        raise DataError(
            f"{path}: a readable video was expected, found damage ({error.strerror}); get it again"
        ) from error


def _is_cut_off(path: Path) -> bool:
    """Whether an AVI or MP4 file is shorter than it says itself; the decoder just stops there."""
    size = path.stat().st_size
    with path.open("rb") as stream:
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
