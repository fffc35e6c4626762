"""Reading ultrasound DICOM: single and multi-frame, every photometric interpretation of the standard's US objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrasam.errors import DataError
from ultrasam.io.files import require_content

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
    import pydicom
    from pydicom.errors import InvalidDicomError

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; check the path")
    with path.open("rb") as stream:
        require_content(stream.read(500), path)
    try:
        dataset = pydicom.dcmread(path)
        if "PixelData" not in dataset:
            raise DataError(f"{path}: a DICOM file with pixels was expected, found {_kind(dataset)} without any")
        return _frames(dataset, path), pixel_spacing(dataset)
    except InvalidDicomError as error:
        raise DataError(f"{path}: a DICOM file was expected, found another kind; check the file") from error
    except DataError:
        raise
    # What pydicom and its decoders raise on damaged files is not one family.
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, NotImplementedError, EOFError,
            IndexError, ArithmeticError, MemoryError) as error:  # fmt: skip
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: a readable DICOM file was expected, found: {reason}") from error


def _frames(dataset: Any, path: Path) -> NDArray[Any]:
    """Return the frames with one or three channels."""
    from pydicom.pixels import apply_color_lut

    photometric = str(dataset.get("PhotometricInterpretation", ""))
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    pixels: NDArray[Any] = dataset.pixel_array
    if frames == 1:
        pixels = pixels[None]
    if photometric == "PALETTE COLOR":
        table = apply_color_lut(pixels, dataset)
        # Tables of 16 bits hold the colour in their upper byte.
        return (table >> 8).astype(np.uint8) if table.dtype == np.uint16 else table
    if photometric == "MONOCHROME1":
        return int(pixels.max()) + int(pixels.min()) - pixels if pixels.dtype != np.uint8 else 255 - pixels
    if photometric in _GREY:
        return pixels
    if photometric in _COLOUR and pixels.ndim == 4 and pixels.shape[3] == 3:
        return pixels
    raise DataError(f"{path}: the photometric interpretations {', '.join((*_GREY, 'PALETTE COLOR', *_COLOUR))} were "
                    f"expected, found {photometric!r} with shape {pixels.shape}")


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
