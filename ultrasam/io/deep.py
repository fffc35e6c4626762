"""Pictures of more than 8 bits a channel in several channels, which Pillow would cut down or refuse."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Numbers = NDArray[Any]

TIFF_MAGIC = (b"II*\0", b"MM\0*")
_BITS, _SAMPLES, _SAMPLE_FORMAT = 258, 277, 339
_UNSIGNED, _SIGNED = 1, 2
_PNG_COLOUR_TYPES = (2, 4, 6)


def is_deep_colour(data: bytes, image: Image.Image) -> bool:
    """Whether Pillow would silently reduce or wrap the values of this opened file."""
    if image.format == "PNG":
        return data[24] == 16 and data[25] in _PNG_COLOUR_TYPES
    if image.format != "TIFF":
        return False
    bits = max(_tag(image, _BITS, 1))
    several = max(_tag(image, _SAMPLES, 1)) > 1
    signed_bytes = bits == 8 and _SIGNED in _tag(image, _SAMPLE_FORMAT, _UNSIGNED)
    return (bits > 8 and several) or signed_bytes


def read_deep(data: bytes, orientation: int) -> Numbers | None:
    """Decode with OpenCV, unchanged.

    Args:
        data: the file.
        orientation: EXIF orientation 1 to 8, applied here; 1 for TIFF, which OpenCV turns itself.

    Returns:
        (H, W) or (H, W, 3) RGB in the type of the file, with transparency laid over black; or None where
        OpenCV does not know the format either.
    """
    try:
        pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if pixels is None:
        return None
    numbers: Numbers = np.asarray(pixels)
    if numbers.ndim == 3 and numbers.shape[2] == 4:
        full = float(np.iinfo(numbers.dtype).max) if np.issubdtype(numbers.dtype, np.integer) else 1.0
        numbers = numbers[..., :3] * (numbers[..., 3:].astype(np.float64) / full)
        numbers = np.rint(numbers) if full > 1 else numbers
    if numbers.ndim == 3:
        numbers = numbers[..., ::-1]
    return turn(numbers, orientation)


def native_numbers(image: Image.Image, unsigned_32: bool) -> Numbers:
    """The values of a loaded one-channel picture of Pillow's deep modes (I;16, I, F), in native byte order.

    Args:
        image: the loaded picture.
        unsigned_32: the file holds unsigned 32-bit values, which Pillow shows as negative from 2**31 on.
    """
    numbers = np.array(image)
    numbers = numbers.astype(numbers.dtype.newbyteorder("="))
    return numbers.view(np.uint32) if unsigned_32 and numbers.dtype == np.int32 else numbers


def is_unsigned_32(image: Image.Image) -> bool:
    """Whether an opened file holds unsigned 32-bit values."""
    return (
        image.format == "TIFF"
        and max(_tag(image, _BITS, 1)) == 32
        and set(_tag(image, _SAMPLE_FORMAT, _UNSIGNED)) == {_UNSIGNED}
    )


def has_late_exif(stream: BinaryIO) -> bool:
    """Whether a PNG file holds an EXIF chunk, found from the heads of its chunks; the position is kept."""
    position = stream.tell()
    stream.seek(8)
    found = False
    while len(head := stream.read(8)) == 8 and not found:
        found = head[4:] == b"eXIf"
        stream.seek(int.from_bytes(head[:4], "big") + 4, io.SEEK_CUR)
    stream.seek(position)
    return found


def turn(pixels: Numbers, orientation: int) -> Numbers:
    """Apply an EXIF orientation (1 to 8) to an array (H, W, ...)."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _tag(image: Image.Image, tag: int, default: int) -> tuple[int, ...]:
    value = getattr(image, "tag_v2", {}).get(tag, default)
    return tuple(value) if isinstance(value, (tuple, list)) else (int(value),)
