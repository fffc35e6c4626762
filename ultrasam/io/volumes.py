"""Reading arrays with several frames: MHA/MHD, NIfTI and DICOM with their geometry, and NPY."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrasam.errors import DataError
from ultrasam.io.dicom import is_dicom, read_dicom
from ultrasam.io.files import read_bytes, require_content

_METAIMAGE = (".mha", ".mhd", ".nrrd")
_NIFTI = (".nii", ".nii.gz")


@dataclass(frozen=True)
class Volume:
    """Frames as they lie in the file.

    Attributes:
        array: (frames, rows, columns) or (frames, rows, columns, channels), in the type of the file; the first
            index is the file's slowest spatial axis (NIfTI z, or the time of a cine).
        spacing: millimetres between neighbours along (frames, rows, columns); None where the file has none.
        directions: for each array axis the anatomical direction of growing index, a letter of "LRAPSI", from the
            header; "" where the file states none or the axis is oblique beyond naming.
    """

    array: NDArray[Any]
    spacing: tuple[float, float, float] | None
    directions: tuple[str, str, str]


def suffix_of(path: Path) -> str:
    """Return the suffix in lower case, ".nii.gz" as one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def is_volume(path: Path) -> bool:
    """Whether `read_volume` reads files of this name."""
    return suffix_of(path) in (*_METAIMAGE, *_NIFTI, ".npy") or is_dicom(path)


def read_volume(path: str | Path) -> Volume:
    """Read a volume or cine.

    A 4D NIfTI (x, y, z, c) gives (z, y, x, c), one of RGB values too; a 2D file gives one frame. NIfTI intensities
    are scaled by the header's slope where it has one (0 and NaN mean none). Nothing is unpickled.

    Raises:
        DataError: missing, empty or damaged file, a Git-LFS pointer, a kind that is not read, or not real numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; check the path and the data root")
    with path.open("rb") as stream:
        require_content(stream.read(500), path)
    suffix = suffix_of(path)
    if is_dicom(path):
        frames, pixel = read_dicom(path)
        return Volume(frames, None if pixel is None else (1.0, *pixel), ("", "", ""))
    read = _read_nifti if suffix in _NIFTI else _read_metaimage if suffix in _METAIMAGE else _read_npy
    if not is_volume(path):
        known = ".mha, .mhd, .nrrd, .nii, .nii.gz, .npy, .dcm"
        raise DataError(f"{path}: a volume ({known}) was expected, found {suffix!r}")
    try:
        found = read(path)
        if found.array.dtype.kind not in "buif" or found.array.size == 0:
            raise DataError(f"{path}: real numbers were expected, found shape {found.array.shape} of type "
                            f"{found.array.dtype}")
        return found
    except (OSError, ValueError, RuntimeError, EOFError, ArithmeticError, MemoryError, zlib.error) as error:
        if isinstance(error, DataError):
            raise
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise DataError(f"{path}: a readable volume was expected, found damage ({reason[0]}); get it again") from error


def frames_to_uint8(array: NDArray[Any], path: Path | str) -> NDArray[np.uint8]:
    """Return intensities as uint8.

    Whole numbers from 0 to 255 are kept, whatever their type, unless they are only 0 and 1. All others are scaled so
    that the smallest value of the array becomes 0 and the largest 255 (all 0 if there is only one value).

    Args:
        array: any shape, of a whole volume, so that its frames stay comparable.
        path: named in errors.

    Raises:
        DataError: NaN or infinity.
    """
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise DataError(f"{path}: finite intensities were expected, found NaN or infinity; repair the volume")
    low, high = float(array.min()), float(array.max())
    if float(low).is_integer() and float(high).is_integer() and low >= 0 and high <= 255:
        whole = np.rint(array)
        if (whole == array).all() and high > 1:
            return whole.astype(np.uint8)
    if high == low:
        return np.zeros(array.shape, np.uint8)
    return np.rint((array.astype(np.float64) - low) * (255.0 / (high - low))).astype(np.uint8)


def _read_nifti(path: Path) -> Volume:
    import nibabel

    try:
        image: Any = _load_gzipped_nifti(path) if path.name.lower().endswith(".gz") else nibabel.load(path)
        array = np.asanyarray(image.dataobj)
    except (nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError) as error:
        raise ValueError(str(error)) from error
    if array.dtype.names:
        array = np.stack([array[name] for name in array.dtype.names], axis=-1)  # RGB or RGBA values
        array = array[..., None, :] if array.ndim == 3 else array
    while array.ndim < 3:
        array = array[..., None]
    if array.ndim == 5 and array.shape[3] == 1:
        array = array[:, :, :, 0]
    if array.ndim > 4:
        raise DataError(f"{path}: 2 to 4 dimensions were expected, found shape {array.shape}")
    header = image.header
    names = ["", "", ""]
    # Without a code the affine is one that nibabel made up.
    if int(header["sform_code"]) or int(header["qform_code"]):
        # The axes of NIfTI point to the right, to the front and up.
        names = [_direction(np.diag([-1, -1, 1]) @ image.affine[:3, axis]) for axis in range(3)]
    zooms = tuple(float(value) for value in header.get_zooms()[:3])
    zooms = (*zooms, *(1.0,) * (3 - len(zooms)))
    order = (2, 1, 0, 3)[: array.ndim]
    spacing = (zooms[2], zooms[1], zooms[0])
    known = all(step > 0 for step in spacing)
    return Volume(array.transpose(order), spacing if known else None, (names[2], names[1], names[0]))


def _load_gzipped_nifti(path: Path) -> Any:
    """Return the nibabel image of a whole file; nibabel itself stops before the checksum at its end."""
    import nibabel

    data = gzip.decompress(read_bytes(path))
    second = data[:4] in ((540).to_bytes(4, "little"), (540).to_bytes(4, "big"))
    return (nibabel.Nifti2Image if second else nibabel.Nifti1Image).from_bytes(data)


def _read_metaimage(path: Path) -> Volume:
    import SimpleITK

    _check_compressed(path)
    SimpleITK.ProcessObject_GlobalWarningDisplayOff()
    image = SimpleITK.ReadImage(str(path))
    array = SimpleITK.GetArrayFromImage(image)
    dimension = image.GetDimension()
    if dimension == 2:
        array = array[None]
    if dimension not in (2, 3):
        raise DataError(f"{path}: 2 or 3 dimensions were expected, found {dimension}")
    steps = tuple(float(value) for value in image.GetSpacing())
    spacing = (steps[2] if dimension == 3 else 1.0, steps[1], steps[0])
    if dimension == 2:
        return Volume(array, spacing, ("", "", ""))
    matrix = np.array(image.GetDirection()).reshape(3, 3)
    # ITK's axes point to the left, to the back and up.
    names = [_direction(matrix[:, axis]) for axis in (2, 1, 0)]
    return Volume(array, spacing, (names[0], names[1], names[2]))


def _check_compressed(path: Path) -> None:
    """Raise zlib.error for damage in compressed MetaImage data, about which SimpleITK only prints a line."""
    with path.open("rb") as stream:
        fields = {}
        for line in stream:
            name, equals, value = line.decode("latin-1").partition("=")
            fields[name.strip()] = value.strip()
            if not equals or name.strip() == "ElementDataFile":
                break
        if fields.get("CompressedData", "").lower() != "true" or "ElementDataFile" not in fields:
            return
        local = fields["ElementDataFile"].lower() == "local"
        with stream if local else (path.parent / fields["ElementDataFile"]).open("rb") as data:
            decoder = zlib.decompressobj(47)  # zlib or gzip, as MetaImage takes both
            while not decoder.eof and (piece := data.read(1 << 20)):
                decoder.decompress(piece)
    if not decoder.eof:
        raise zlib.error("the compressed data are cut off")


def _direction(column: NDArray[np.float64]) -> str:
    """Return the letter of the anatomical axis nearest to a direction in ITK's coordinates, "" when none is near."""
    axis = int(np.abs(column).argmax())
    # Within 41 degrees, so that two axes at right angles never get the same letter.
    if not abs(column[axis]) > 0.75 * float(np.linalg.norm(column)):
        return ""
    return ("LPS" if column[axis] > 0 else "RAI")[axis]


def _read_npy(path: Path) -> Volume:
    import io

    array = np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)
    if array.ndim == 2:
        array = array[None]
    if array.ndim not in (3, 4):
        raise DataError(f"{path}: 2 to 4 dimensions were expected, found shape {array.shape}")
    return Volume(array, None, ("", "", ""))
