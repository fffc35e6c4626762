"""Reading images and masks of every common kind by one explicit table of modes, and writing PNG."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ultrasam.errors import DataError
from ultrasam.io.deep import (
    TIFF_MAGIC,
    Numbers,
    has_late_exif,
    is_deep_colour,
    is_unsigned_32,
    native_numbers,
    read_deep,
)
from ultrasam.io.files import read_bytes, require_content, write_atomic

Palette = Literal["grey", "index"]

# Larger files are refused before any memory is taken: no ultrasound frame comes near.
MAX_PIXELS = 89_000_000
# What the decoders of Pillow raise on damaged data.
_DAMAGE = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError,
    struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_ALPHA_MODES = ("LA", "PA", "RGBA")
_EIGHT_BIT_MODES = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", *_ALPHA_MODES)
_ORIENTATION, _TIFF_WIDTH, _TIFF_HEIGHT = 274, 256, 257


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read an image as RGB.

    8-bit values are kept. Transparent pixels are laid over black. Values of more than 8 bits, integer or
    float, are scaled linearly so that the smallest value of the file becomes 0 and the largest 255 (all 0 if
    the file has one value only). The EXIF orientation is applied.

    Args:
        path: PNG, JPEG, BMP, TIFF or another format that Pillow reads, with one frame.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        DataError: the file is missing, empty, truncated, not an image, too large, has several frames, or
            holds NaN or infinity.
    """
    return decode_image(read_bytes(path), Path(path))


def decode_image(data: bytes, name: Path) -> NDArray[np.uint8]:
    """Decode what is in an image file, as :func:`read_image`; `name` is for messages, nothing is opened."""
    pixels = _decoded(data, name)
    if isinstance(pixels, Image.Image):
        return _rgb(pixels)
    scaled = _scale_to_uint8(pixels, name)
    return np.repeat(scaled[:, :, None], 3, axis=2) if scaled.ndim == 2 else scaled


def read_mask(path: str | Path, *, palette: Palette = "grey") -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Read a mask or label map as numbers, without any threshold.

    1-bit files give 0 and 255, 8-bit files their values, deeper files their values as uint16. Colour files
    must be grey (red = green = blue everywhere). Fully or partly transparent pixels are laid over black.

    Args:
        path: the file, with one frame.
        palette: for files with a colour table, "grey" gives the luminance of the colours and "index" the
            numbers of the table entries.

    Returns:
        uint8 or uint16 (H, W).

    Raises:
        DataError: as :func:`read_image`; or the mask has colours, draws in the alpha channel only, or has
            values that are not whole numbers from 0 to 65535.
    """
    path = Path(path)
    pixels = _decode(path)
    if isinstance(pixels, Image.Image):
        if pixels.mode == "P" and palette == "index":
            return np.array(pixels, dtype=np.uint8)
        if pixels.mode == "P" and "transparency" not in pixels.info:
            return np.array(pixels.convert("RGB").convert("L"), dtype=np.uint8)
        _require_opaque_drawing(pixels, path)
        colours = _rgb(pixels)
        return _grey(colours, path) if pixels.mode != "P" else np.array(Image.fromarray(colours).convert("L"))
    if pixels.ndim == 3:
        pixels = _grey(pixels[..., :3], path)
    _require_finite(pixels, path)
    whole = np.rint(pixels)
    if (whole != pixels).any() or pixels.min() < 0 or pixels.max() > 65535:
        raise DataError(
            f"{path}: a mask must hold whole numbers from 0 to 65535, found {pixels.dtype} values from "
            f"{pixels.min()} to {pixels.max()}; save it as an 8-bit or 16-bit label map"
        )
    return whole.astype(np.uint16)


def read_mask_colours(path: str | Path) -> NDArray[np.uint8]:
    """Read a mask that is painted in colours, uint8 (H, W, 3) RGB, to be matched with a colour table.

    Raises:
        DataError: as :func:`read_image`, or the file has more than 8 bits a channel.
    """
    pixels = _decode(Path(path))
    if not isinstance(pixels, Image.Image):
        raise DataError(f"{path}: a colour mask has 8 bits a channel, found {pixels.dtype}; use read_mask")
    return _rgb(pixels)


def image_size(path: str | Path) -> tuple[int, int]:
    """Height and width in pixels, with the EXIF orientation applied, from the header alone.

    Raises:
        DataError: the file is missing, empty or not an image.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            head = stream.read(500)
            require_content(head, path)
            stream.seek(0)
            with Image.open(stream) as image:
                return _upright_size(image, stream)
    except Image.UnidentifiedImageError:
        # Some TIFF files are beyond Pillow's headers; those are decoded.
        return read_image(path).shape[:2]
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; check the path and the data root") from error
    except _DAMAGE as error:
        raise _unreadable(path, error) from error


def write_png(path: str | Path, array: NDArray[np.generic]) -> None:
    """Write a PNG whole or not at all; folders are created.

    Args:
        path: the file.
        array: bool (H, W), written as 0 and 255; uint8 (H, W), (H, W, 3) RGB or (H, W, 4) RGBA; or
            uint16 (H, W).

    Raises:
        DataError: another type or shape, or the file cannot be written.
    """
    shape_ok = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4) and array.dtype == np.uint8)
    if array.dtype not in (np.bool_, np.uint8, np.uint16) or not shape_ok or array.size == 0:
        raise DataError(
            f"{path}: a PNG is written from bool, uint8 or uint16 (height, width) or uint8 (height, width, "
            f"3 or 4), found {array.dtype} {array.shape}"
        )
    pixels = array.astype(np.uint8) * np.uint8(255) if array.dtype == np.bool_ else array
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG")
    write_atomic(path, buffer.getvalue())


def _decode(path: Path) -> Image.Image | Numbers:
    """The upright picture: a Pillow image with at most 8 bits a channel, or else its raw numbers."""
    return _decoded(read_bytes(path), path)


def _decoded(data: bytes, path: Path) -> Image.Image | Numbers:
    try:
        image: Image.Image = Image.open(io.BytesIO(data))
    except Image.UnidentifiedImageError as error:
        numbers = read_deep(data, 1) if data[:4] in TIFF_MAGIC else None
        if numbers is None:
            raise _unreadable(path, error) from error
        return numbers
    except _DAMAGE as error:
        raise _unreadable(path, error) from error
    _require_one_reasonable_frame(image, path)
    try:
        if is_deep_colour(data, image):
            numbers = read_deep(data, 1 if image.format == "TIFF" else _orientation(image.getexif()))
            if numbers is None:
                raise OSError("its depth is not supported")
            return numbers
        unsigned_32 = is_unsigned_32(image)
        image.load()
        image = ImageOps.exif_transpose(image)
    except _DAMAGE as error:
        raise _unreadable(path, error) from error
    if image.mode in _DEEP_MODES:
        return native_numbers(image, unsigned_32)
    if image.mode not in _EIGHT_BIT_MODES:
        raise DataError(f"{path}: images of mode {image.mode!r} are not supported; save it as 8-bit PNG")
    return image


def _require_one_reasonable_frame(image: Image.Image, path: Path) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(
            f"{path} claims {image.height} x {image.width} pixels, more than the {MAX_PIXELS} that are "
            "accepted; crop or reduce it if it really is an image of this size"
        )
    try:
        # A telephone's MPO file holds one picture and its previews.
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    except _DAMAGE as error:
        raise _unreadable(path, error) from error
    if frames > 1:
        raise DataError(
            f"{path} holds {frames} frames, one was expected; save every frame as a file of its own"
        )


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return DataError(f"{path} claims an enormous size ({error}); crop or reduce it if it is an image")
    if isinstance(error, Image.UnidentifiedImageError):
        return DataError(f"{path} is not an image in a known format (PNG, JPEG, BMP, TIFF); save it as PNG")
    return DataError(f"{path} is damaged or truncated ({error}); copy or download it again")


def _orientation(exif: Image.Exif) -> int:
    value = exif.get(_ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def _upright_size(image: Image.Image, stream: BinaryIO) -> tuple[int, int]:
    height, width = image.height, image.width
    if image.format == "TIFF":
        # Newer versions of Pillow turn the size of TIFF files themselves; the tags are what is stored.
        tags = getattr(image, "tag_v2", {})
        height, width = int(tags.get(_TIFF_HEIGHT, height)), int(tags.get(_TIFF_WIDTH, width))
    # A PNG file may keep its EXIF data after the pixels: Pillow would decode all of them to look there.
    late = image.format == "PNG" and "exif" not in image.info and has_late_exif(stream)
    exif = image.getexif() if late else Image.Image.getexif(image)
    return (width, height) if _orientation(exif) >= 5 else (height, width)


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Pixels uint8 (H, W, 3) of a picture with at most 8 bits a channel, transparency laid over black."""
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, rgba)
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _grey(pixels: Numbers, path: Path) -> Numbers:
    """The common value (H, W) of three equal channels."""
    if pixels.ndim == 2:
        return pixels
    if (pixels[..., :1] != pixels).any():
        colours = len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0))
        raise DataError(
            f"{path}: a mask must be grey, but this one has {colours} colours; give a colour table and read "
            "it with read_mask_colours, or save it as a grey label map"
        )
    return np.ascontiguousarray(pixels[..., 0])


def _require_opaque_drawing(image: Image.Image, path: Path) -> None:
    """A mask with one colour everywhere and a varying alpha channel would come out ambiguous or black."""
    if image.mode not in ("LA", "RGBA"):
        return
    channels = np.array(image)
    constant = (channels == channels[:1, :1]).all(axis=(0, 1))
    if constant[:-1].all() and not constant[-1]:
        raise DataError(
            f"{path}: the mask is drawn in the alpha channel only (its colour is the same everywhere); "
            "save it as a grey image without transparency"
        )


def _require_finite(pixels: Numbers, path: Path) -> None:
    bad = int(pixels.size - np.isfinite(pixels).sum())
    if bad:
        raise DataError(f"{path}: {bad} of {pixels.size} values are NaN or infinite; replace them first")


def _scale_to_uint8(pixels: Numbers, path: Path) -> NDArray[np.uint8]:
    _require_finite(pixels, path)
    values = pixels.astype(np.float64)
    low, high = values.min(), values.max()
    if high == low:
        return np.zeros(values.shape, dtype=np.uint8)
    return np.rint((values - low) * (255.0 / (high - low))).astype(np.uint8)
