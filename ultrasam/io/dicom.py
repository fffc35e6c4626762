"""Reading ultrasound DICOM: single and multi-frame, every photometric interpretation of the standard's US objects."""

from __future__ import annotations

import io
import struct
from collections.abc import Generator, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ultrasam.errors import DataError
from ultrasam.io.dicom_codecs import decoded_by_av, is_for_av
from ultrasam.io.files import require_content
from ultrasam.io.images import MAX_PIXELS

Source = Path | bytes

_SUFFIXES = (".dcm", ".dicom")
_PREAMBLE = 128
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")
# Of PhysicalUnitsXDirection and PhysicalUnitsYDirection.
_CENTIMETRES = 3
_TWO_DIMENSIONAL = 1


def is_dicom(path: Path) -> bool:
    """Whether the file is DICOM by its name or, where it has no telling name, by its first bytes."""
    if path.suffix.lower() in _SUFFIXES:
        return True
    if path.suffix and not path.suffix[1:].isdigit():
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"
    except OSError:
        return False


def read_dicom(path: str | Path) -> tuple[NDArray[Any], tuple[float, float] | None]:
    """Read the frames of a DICOM file and the size of a pixel.

    MONOCHROME1 is inverted, so that high is bright; YBR becomes RGB; PALETTE COLOR takes its colour table. Grey values
    keep their type and range.

    Returns:
        (frames, rows, columns) grey or (frames, rows, columns, 3) RGB, and millimetres along (rows, columns): of the
        calibrated two-dimensional regions where all of them agree, else of PixelSpacing, else None.

    Raises:
        DataError: the file is missing, no DICOM, without pixels, damaged, or compressed in a way that no installed
            decoder reads.
    """
    path = Path(path)
    dataset = read_header(path, path.name)
    frames = np.stack(list(decode_frames(path, dataset, path.name)))
    if is_inverted(dataset):
        frames = invert(frames, int(frames.min()), int(frames.max()))
    return frames, pixel_spacing(dataset)


def read_header(source: Source, name: str) -> Any:
    """Read what a DICOM file says of itself, without its pixels.

    Args:
        source: the file, or what is in it.
        name: names it in errors; a path is named whole.

    Returns:
        the pydicom data set.

    Raises:
        DataError: as :func:`read_dicom`, as far as can be told without decoding.
    """
    import pydicom

    where = source if isinstance(source, Path) else name
    if isinstance(source, Path) and not source.is_file():
        raise DataError(f"{source} does not exist; check the path")
    try:
        with _opened(source) as stream:
            require_content(stream.read(500), Path(where))
            stream.seek(0)
            dataset = pydicom.dcmread(stream, stop_before_pixels=True)
            rest = stream.read(4)
            # Copies of the data set would warn of a stream that is closed.
            dataset.buffer = None
    except _failures() as error:
        raise _unreadable(where, error) from error
    if len(rest) < 4 and not _is_deflated(dataset):
        raise DataError(f"{where}: a DICOM file with pixels was expected, found {_kind(dataset)} without any")
    _require_known(dataset, where)
    return dataset


def frame_total(dataset: Any) -> int:
    """Number of frames that the header states, at least 1."""
    return max(1, int(dataset.get("NumberOfFrames", 1) or 1))


def frame_rate(dataset: Any) -> float | None:
    """Frames per second that the header states, None where it is silent."""
    for name, factor in (("CineRate", 0.0), ("RecommendedDisplayFrameRate", 0.0), ("FrameTime", 1000.0)):
        value = float(dataset.get(name, 0) or 0)
        if value > 0:
            return factor / value if factor else value
    return None


def is_inverted(dataset: Any) -> bool:
    """Whether low values are bright."""
    return str(dataset.get("PhotometricInterpretation", "")) == "MONOCHROME1"


def invert(pixels: NDArray[Any], low: int, high: int) -> NDArray[Any]:
    """Turn MONOCHROME1 values round: 8-bit ones in 0 to 255, others in the file's own range from low to high."""
    return 255 - pixels if pixels.dtype == np.uint8 else (high + low - pixels.astype(np.int64)).astype(pixels.dtype)


def decode_frames(
    source: Source, dataset: Any, name: str, indices: Iterable[int] | None = None
) -> Generator[NDArray[Any], None, None]:
    """Decode frames one at a time: (rows, columns) grey, MONOCHROME1 not yet inverted, or (rows, columns, 3) RGB.

    Args:
        source: the file, or what is in it.
        dataset: its :func:`read_header`.
        name: names it in errors.
        indices: numbers of the frames, rising; all by default.

    Raises:
        DataError: a frame is damaged, missing, or compressed in a way that no installed decoder reads.
    """
    import pydicom
    from pydicom.pixels import apply_color_lut, iter_pixels

    where = source if isinstance(source, Path) else name
    decoded: Any
    wanted = list(range(frame_total(dataset)) if indices is None else indices)
    palette = str(dataset.PhotometricInterpretation) == "PALETTE COLOR"
    count = 0
    try:
        with _opened(source) as stream:
            if is_for_av(dataset):
                decoded = decoded_by_av(pydicom.dcmread(stream), wanted)
            elif _is_deflated(dataset):
                decoded = iter_pixels(pydicom.dcmread(stream), indices=wanted)
            else:
                decoded = iter_pixels(stream, indices=wanted)
            # Closed before the stream that it reads, also when the caller takes some frames only.
            with closing(decoded):
                for pixels in decoded:
                    if palette:
                        table = apply_color_lut(pixels, dataset)
                        # Tables of 16 bits hold the colour in their upper byte.
                        pixels = (table >> 8).astype(np.uint8) if table.dtype == np.uint16 else table
                    yield pixels
                    count += 1
    except _failures() as error:
        raise _unreadable(where, error) from error
    if count < len(wanted):
        raise DataError(f"{where}: {len(wanted)} frames were expected, found {count}; get the file again")


def _opened(source: Source) -> BinaryIO:
    return source.open("rb") if isinstance(source, Path) else io.BytesIO(source)


def _is_deflated(dataset: Any) -> bool:
    meta = getattr(dataset, "file_meta", None)
    uid = meta.get("TransferSyntaxUID") if meta is not None else None
    return bool(uid is not None and uid.is_deflated)


def _failures() -> tuple[type[Exception], ...]:
    """What pydicom and its decoders raise on damaged files, which is not one family."""
    import av
    from pydicom.errors import InvalidDicomError

    return (InvalidDicomError, OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, EOFError,
            NotImplementedError, IndexError, ArithmeticError, MemoryError, AssertionError, struct.error,
            av.error.FFmpegError)  # fmt: skip


def _unreadable(where: Path | str, error: Exception) -> DataError:
    from pydicom.errors import InvalidDicomError

    if isinstance(error, DataError):
        return error
    if isinstance(error, InvalidDicomError):
        return DataError(f"{where}: a DICOM file was expected, found another kind; check the file")
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # pydicom's first line announces what each decoder said.
    reason = " ".join(line.strip() for line in lines[:2]) if lines[0].endswith(":") else lines[0]
    return DataError(f"{where}: a readable DICOM file was expected, found: {reason}")


def _require_known(dataset: Any, where: Path | str) -> None:
    """Refuse kinds of pixels that nobody knows how to show, and sizes that no ultrasound frame has."""
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    samples = int(dataset.get("SamplesPerPixel", 1) or 1)
    rows, columns = int(dataset.get("Rows", 0) or 0), int(dataset.get("Columns", 0) or 0)
    grey = photometric in (*_GREY, "PALETTE COLOR") and samples == 1
    if not grey and not (photometric in _COLOUR and samples == 3):
        raise DataError(f"{where}: the photometric interpretations {', '.join((*_GREY, 'PALETTE COLOR', *_COLOUR))} "
                        f"were expected, found {photometric!r} with {samples} samples a pixel")  # fmt: skip
    if rows < 1 or columns < 1 or rows * columns > MAX_PIXELS:
        raise DataError(f"{where}: frames of 1 to {MAX_PIXELS} pixels were expected, found {rows} x {columns}; "
                        "crop the file or get it again")  # fmt: skip


def pixel_spacing(dataset: Any) -> tuple[float, float] | None:
    """Return millimetres along (rows, columns) of a pydicom data set; None where it is silent or contradicts itself."""
    found = set()
    for region in dataset.get("SequenceOfUltrasoundRegions", None) or ():
        units = (region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection"))
        if region.get("RegionSpatialFormat") == _TWO_DIMENSIONAL and units == (_CENTIMETRES, _CENTIMETRES):
            found.add((10 * abs(float(region.PhysicalDeltaY)), 10 * abs(float(region.PhysicalDeltaX))))
    if found:
        rows, columns = next(iter(found))
        return (rows, columns) if len(found) == 1 and rows > 0 and columns > 0 else None
    spacing = dataset.get("PixelSpacing", None)
    if spacing is None or len(spacing) != 2 or min(float(value) for value in spacing) <= 0:
        return None
    return float(spacing[0]), float(spacing[1])


def _kind(dataset: Any) -> str:
    uid = dataset.get("SOPClassUID")
    return str(getattr(uid, "name", uid) or "a DICOM file")
