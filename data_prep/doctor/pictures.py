"""What is wrong with an image file, and its repaired pixels."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.doctor.values import Size, size_of
from ultrasam.errors import DataError
from ultrasam.io.deep import has_late_exif, is_deep_colour, turn
from ultrasam.io.files import read_bytes
from ultrasam.io.images import read_image

EMPTY_FILE = "image file of 0 bytes"
POINTER = "image file is a Git-LFS or git-annex pointer"
NO_IMAGE = "image file is no image"
TRUNCATED = "image truncated or damaged"
SEVERAL_FRAMES = "image file of several frames"
TOO_LONG = "image of an extreme size"
ALPHA = "image with an alpha channel (RGBA)"
GREY_ALPHA = "image with an alpha channel (grey)"
PALETTE = "palette image"
CMYK = "CMYK image"
DEEP = "image of more than 8 bits"
ONE_BIT = "image of 1 bit"
OTHER_MODE = "image in an unusual colour mode"
TURNED = "image turned by an EXIF tag"

# What is done about a file that can be read, in words that follow a number.
REPAIRS = {
    ALPHA: "written as RGB, transparency over black",
    GREY_ALPHA: "written as RGB, transparency over black",
    PALETTE: "written as RGB",
    CMYK: "written as RGB",
    DEEP: "scaled to 8 bits, each by its own extremes",
    ONE_BIT: "written with 8 bits",
    OTHER_MODE: "written as RGB",
    TURNED: "turned",
}
_ORIENTATION = 274
# The orientation that undoes another one; the rest undo themselves.
_INVERSE = {6: 8, 8: 6}
_LFS_POINTER, _ANNEX_POINTER = b"version https://git-lfs.github.com", b"/annex/objects/"


@dataclass(frozen=True)
class Picture:
    """An image file as it was found.

    Attributes:
        upright: (height, width) with the EXIF orientation applied; (0, 0) where the file is of no use.
        orientation: EXIF orientation, 1 to 8.
        faults: of `REPAIRS`; empty where any program reads the file alike.
        broken: the fault that makes the file useless; empty where there is none.
        reason: the reader's sentence about it.
    """

    upright: Size
    orientation: int = 1
    faults: tuple[str, ...] = ()
    broken: str = ""
    reason: str = ""

    @property
    def stored(self) -> Size:
        """(height, width) as a program that ignores EXIF sees it."""
        return self.upright[::-1] if self.orientation >= 5 else self.upright


def probe(path: Path) -> Picture:
    """Read an image file completely and say what is wrong with it."""
    try:
        height, width = read_image(path).shape[:2]
    except DataError as error:
        return Picture((0, 0), broken=_breakage(path), reason=str(error))
    if size_of(height, width) is None:
        return Picture((0, 0), broken=TOO_LONG, reason=f"{path} has {height} x {width} pixels")
    data = read_bytes(path)
    try:
        with Image.open(io.BytesIO(data)) as image:
            orientation = _orientation(image, data)
            faults = _mode_faults(image, data)
    except Image.UnidentifiedImageError:
        # Some TIFF files of more than 8 bits are beyond Pillow.
        return Picture((height, width), faults=(DEEP,))
    turned = (TURNED,) if orientation != 1 else ()
    return Picture((height, width), orientation, faults + turned)


def repaired_pixels(path: Path, orientation: int, *, as_stored: bool) -> np.ndarray:
    """Return the image as uint8 H x W x 3 RGB, upright, or as it is stored without its EXIF orientation."""
    pixels = read_image(path)
    return turn(pixels, _INVERSE.get(orientation, orientation)) if as_stored else pixels


def _breakage(path: Path) -> str:
    """Return the fault of a file that the reader refuses."""
    try:
        with path.open("rb") as stream:
            head = stream.read(500)
    except OSError:
        return NO_IMAGE
    if not head:
        return EMPTY_FILE
    if head.startswith(_LFS_POINTER) or (len(head) < 500 and _ANNEX_POINTER in head):
        return POINTER
    try:
        with Image.open(path) as image:
            return SEVERAL_FRAMES if getattr(image, "n_frames", 1) > 1 and image.format != "MPO" else TRUNCATED
    except Image.UnidentifiedImageError:
        return NO_IMAGE
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError,
            Image.DecompressionBombError):
        # The head is that of an image, and what follows is not.
        return TRUNCATED


def _orientation(image: Image.Image, data: bytes) -> int:
    """Return the EXIF orientation without decoding the pixels."""
    late = image.format == "PNG" and "exif" not in image.info and has_late_exif(io.BytesIO(data))
    exif = image.getexif() if late else Image.Image.getexif(image)
    value = exif.get(_ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def _mode_faults(image: Image.Image, data: bytes) -> tuple[str, ...]:
    """Return what is unusual about the colours of an opened file."""
    if is_deep_colour(data, image) or image.mode.startswith(("I", "F")):
        return (DEEP,)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        return (GREY_ALPHA if image.mode in ("LA", "La", "L") else ALPHA,)
    known = {"P": PALETTE, "CMYK": CMYK, "1": ONE_BIT}
    if image.mode in known:
        return (known[image.mode],)
    return () if image.mode in ("L", "RGB") else (OTHER_MODE,)
