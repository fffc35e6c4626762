"""Compressed DICOM pixels that pydicom and Pillow leave out and FFmpeg reads: lossless JPEG, JPEG-LS and films."""

from __future__ import annotations

import io
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LOSSLESS_JPEG = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
# MPEG-2, MPEG-4 AVC/H.264 and HEVC/H.265, all profiles of the standard.
_FILMS = tuple(f"1.2.840.10008.1.2.4.{number}" for number in range(100, 109))
_DEEP_GREY = ("gray9le", "gray10le", "gray12le", "gray14le", "gray16le")


def is_for_av(dataset: Any) -> bool:
    """Whether the pixels are in a syntax that is decoded here and that no decoder of pydicom's is installed for."""
    from pydicom.pixels import get_decoder

    meta = getattr(dataset, "file_meta", None)
    uid = meta.get("TransferSyntaxUID") if meta is not None else None
    if uid in _FILMS:
        return True
    if uid not in (*_LOSSLESS_JPEG, *_JPEG_LS):
        return False
    return not get_decoder(uid).is_available


def decoded_by_av(dataset: Any, indices: Sequence[int]) -> Generator[NDArray[Any], None, None]:
    """Decode frames of a whole data set: (rows, columns) grey or (rows, columns, 3) RGB.

    Args:
        dataset: with its pixels, of a syntax that `is_for_av`.
        indices: numbers of the frames from 0, rising.

    Raises:
        ValueError: a frame is missing or of another size or kind than the header states.
        av.error.FFmpegError: it is damaged.
    """
    uid = str(dataset.file_meta.TransferSyntaxUID)
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    decode = _film(dataset) if uid in _FILMS else _pictures(dataset, frames, uid)
    wanted = set(indices)
    for number, frame in enumerate(decode):
        if number in wanted:
            expected = (int(dataset.Rows), int(dataset.Columns))
            if frame.shape[:2] != expected:
                raise ValueError(f"frame {number} has {frame.shape[:2]} rows and columns, the header says {expected}")
            yield frame
        if number >= max(wanted, default=-1):
            return


def _film(dataset: Any) -> Generator[NDArray[Any], None, None]:
    """All frames of one stream of MPEG-2, H.264 or H.265, which may lie in several fragments."""
    import av
    from pydicom.encaps import generate_fragments

    data = b"".join(list(generate_fragments(dataset.PixelData))[1:])
    with av.open(io.BytesIO(data)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def _pictures(dataset: Any, frames: int, uid: str) -> Generator[NDArray[Any], None, None]:
    import av
    from pydicom.encaps import generate_frames

    for data in generate_frames(dataset.PixelData, number_of_frames=frames):
        decoder: Any = av.CodecContext.create("jpegls" if uid in _JPEG_LS else "mjpeg", "r")
        decoded = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
        if len(decoded) != 1:
            raise ValueError(f"one picture was expected in a frame, found {len(decoded)}")
        yield _numbers(decoded[0], dataset)


def _numbers(frame: Any, dataset: Any) -> NDArray[Any]:
    """The values of one decoded picture in the type that the header states."""
    if int(dataset.get("SamplesPerPixel", 1)) == 3:
        # The three components are colours as they are; a colour transform is only what the header says.
        planes = frame.to_ndarray(format="rgb24") if "yuv" not in frame.format.name else _planes(frame, dataset)
        return np.asarray(planes)
    if frame.format.name not in ("gray", *_DEEP_GREY):
        raise ValueError(f"grey pixels were expected, found {frame.format.name}")
    pixels: NDArray[Any] = frame.to_ndarray()
    signed = int(dataset.get("PixelRepresentation", 0)) == 1
    stored = np.dtype(f"{'i' if signed else 'u'}{int(dataset.BitsAllocated) // 8}")
    return pixels.astype(np.uint16).astype(stored)


def _planes(frame: Any, dataset: Any) -> NDArray[Any]:
    from pydicom.pixels import convert_color_space

    if frame.format.name not in ("yuv444p", "yuvj444p"):
        raise ValueError(f"three full planes were expected, found {frame.format.name}")
    planes: NDArray[Any] = np.moveaxis(frame.to_ndarray(), 0, -1)
    photometric = str(dataset.PhotometricInterpretation)
    return planes if photometric == "RGB" else convert_color_space(planes, "YBR_FULL", "RGB")
