"""Reading arrays with several frames: MHA/MHD, NIfTI and DICOM with their geometry, and NPY."""

from __future__ import annotations

import gzip
import io
import math
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ultrasam.errors import DataError
from ultrasam.io.dicom import is_dicom, read_dicom
from ultrasam.io.files import read_bytes, require_content
from ultrasam.io.metaimage import self_contained

_METAIMAGE = (".mha", ".mhd", ".nrrd")
_NIFTI = (".nii", ".nii.gz")
# Of a whole file; more is damage or malice: the largest volumes of automated breast scanners have 0.3e9 values.
MAX_VALUES = 600_000_000


@dataclass(frozen=True)
class Geometry:
    """Where a file's voxels lie, kept so that masks can be written on the same grid.

    Attributes:
        format: the library that reads and writes it.
        shape: of the array in that library's order, without channels: NIfTI (x, y, z[, t]), ITK (x, y[, z]).
        nifti: header and affine of the NIfTI file, else None.
        origin: of an ITK file, with `spacing` and `direction` as SimpleITK gives them.
        spacing: as above.
        direction: as above.
    """

    format: Literal["nifti", "itk"]
    shape: tuple[int, ...]
    nifti: tuple[Any, NDArray[np.float64]] | None = None
    origin: tuple[float, ...] = ()
    spacing: tuple[float, ...] = ()
    direction: tuple[float, ...] = ()


@dataclass(frozen=True)
class Volume:
    """Frames as they lie in the file.

    Attributes:
        array: (frames, rows, columns) or (frames, rows, columns, channels), in the type of the file; the first
            index is the file's slowest spatial axis (NIfTI z, or the time of a cine).
        spacing: millimetres between neighbours along (frames, rows, columns); None where the file has none.
        directions: for each array axis the anatomical direction of growing index, a letter of "LRAPSI", from the
            header; "" where the file states none or the axis is oblique beyond naming.
        geometry: of NIfTI, MHA, MHD and NRRD files; else None.
    """

    array: NDArray[Any]
    spacing: tuple[float, float, float] | None
    directions: tuple[str, str, str]
    geometry: Geometry | None = None


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
    if not is_volume(path):
        known = ".mha, .mhd, .nrrd, .nii, .nii.gz, .npy, .dcm"
        raise DataError(f"{path}: a volume ({known}) was expected, found {suffix!r}")
    read = _read_nifti if suffix in _NIFTI else _read_metaimage if suffix in _METAIMAGE else _read_npy
    return _checked(lambda: read(path), path)


def read_volume_bytes(data: bytes, name: str) -> Volume:
    """Read what is in a volume's file, which need not come from a file of this machine.

    No file that the data name is opened: headers whose pixels lie in another file are refused.

    Args:
        data: the whole file.
        name: the file's name: its suffix tells the kind, errors name it.

    Raises:
        DataError: as `read_volume`.
    """
    path = Path(name)
    require_content(data[:500], path)
    suffix = suffix_of(path)
    if suffix in _NIFTI:
        return _checked(lambda: _nifti(_nifti_of(data, suffix == ".nii.gz", path), path), path)
    if suffix in _METAIMAGE:
        return _checked(lambda: _private_metaimage(data, path), path)
    if suffix == ".npy":
        return _checked(lambda: _npy(data, path), path)
    raise DataError(f"{path}: a volume (.mha, .mhd, .nrrd, .nii, .nii.gz, .npy) was expected, found {suffix!r}")


def _checked(read: Callable[[], Volume], path: Path) -> Volume:
    """Read and say in one way what is wrong."""
    try:
        found = read()
        if found.array.dtype.kind not in "buif" or found.array.size == 0:
            raise DataError(f"{path}: real numbers were expected, found shape {found.array.shape} of type "
                            f"{found.array.dtype}")
        return found
    except (OSError, ValueError, RuntimeError, EOFError, ArithmeticError, MemoryError, zlib.error) as error:
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise DataError(f"{path}: a readable volume was expected, found damage ({reason[0]}); get it again") from error


def _private_metaimage(data: bytes, path: Path) -> Volume:
    """Read a file of one part through a copy in a folder of its own, which is gone at once."""
    suffix, content = self_contained(data, path)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"scan{suffix}"
        copy.write_bytes(content)
        try:
            return _read_metaimage(copy)
        except (RuntimeError, DataError) as error:
            # The copy's name means nothing to the reader.
            raise type(error)(str(error).replace(str(copy), str(path))) from error


def frames_to_uint8(
    array: NDArray[Any], path: Path | str, span: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Return intensities as uint8.

    Whole numbers from 0 to 255 are kept, whatever their type, unless they are only 0 and 1. All others are scaled so
    that the smallest value of the array becomes 0 and the largest 255 (all 0 if there is only one value).

    Args:
        array: any shape, of a whole volume, so that its frames stay comparable.
        path: named in errors.
        span: smallest and largest value of the whole, where `array` is a part of it and holds integers.

    Raises:
        DataError: NaN or infinity.
    """
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise DataError(f"{path}: finite intensities were expected, found NaN or infinity; repair the volume")
    low, high = (float(array.min()), float(array.max())) if span is None else (float(span[0]), float(span[1]))
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
        packed = path.name.lower().endswith(".gz")
        return _nifti(_nifti_of(read_bytes(path), True, path) if packed else nibabel.load(path), path)
    except _nifti_damage() as error:
        raise ValueError(str(error)) from error


def _nifti_damage() -> tuple[type[Exception], ...]:
    """What nibabel raises on damaged heads."""
    import nibabel

    return (nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError,
            nibabel.wrapstruct.WrapStructError)  # fmt: skip


def _nifti(image: Any, path: Path) -> Volume:
    """Return the volume of an opened nibabel image."""
    header = image.header
    stated = tuple(int(size) for size in header.get_data_shape())
    _require_size(stated, path)
    array = np.asanyarray(image.dataobj)
    if array.dtype.names:
        array = np.stack([array[name] for name in array.dtype.names], axis=-1)  # RGB or RGBA values
        array = array[..., None, :] if array.ndim == 3 else array
    while array.ndim < 3:
        array = array[..., None]
    if array.ndim == 5 and array.shape[3] == 1:
        array = array[:, :, :, 0]
    if array.ndim > 4:
        raise DataError(f"{path}: 2 to 4 dimensions were expected, found shape {array.shape}")
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
    geometry = Geometry("nifti", stated, (header.copy(), np.asarray(image.affine, np.float64)))
    return Volume(array.transpose(order), spacing if known else None, (names[2], names[1], names[0]), geometry)


def _nifti_of(data: bytes, packed: bool, path: Path) -> Any:
    """Return the nibabel image of a whole file; nibabel itself stops before the checksum at a packed file's end."""
    import nibabel

    if packed:
        data = _unpacked(data, path)
    second = data[:4] in ((540).to_bytes(4, "little"), (540).to_bytes(4, "big"))
    try:
        return (nibabel.Nifti2Image if second else nibabel.Nifti1Image).from_bytes(data)
    except _nifti_damage() as error:
        raise ValueError(str(error)) from error


def _unpacked(data: bytes, path: Path) -> bytes:
    """Unpack gzip, but not more than the largest volume, of 8 bytes a value, can hold."""
    pieces, total = [], 0
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
        while piece := stream.read(1 << 24):
            pieces.append(piece)
            total += len(piece)
            if total > 8 * MAX_VALUES:
                raise DataError(f"{path} unpacks to more than {8 * MAX_VALUES} bytes, beyond any volume; get it again")
    return b"".join(pieces)


def _require_size(shape: Sequence[int], path: Path) -> None:
    """Refuse what a header claims before any memory is taken."""
    if math.prod(shape) > MAX_VALUES:
        size = " x ".join(str(length) for length in shape)
        raise DataError(f"{path} claims {size} values, more than the {MAX_VALUES} that are accepted; get it again")


def _read_metaimage(path: Path) -> Volume:
    import SimpleITK

    _check_compressed(path)
    SimpleITK.ProcessObject_GlobalWarningDisplayOff()
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    _require_size((*reader.GetSize(), reader.GetNumberOfComponents()), path)
    image = reader.Execute()
    array = SimpleITK.GetArrayFromImage(image)
    dimension = image.GetDimension()
    if dimension == 2:
        array = array[None]
    if dimension not in (2, 3):
        raise DataError(f"{path}: 2 or 3 dimensions were expected, found {dimension}")
    geometry = Geometry("itk", image.GetSize(), None, image.GetOrigin(), image.GetSpacing(), image.GetDirection())
    steps = tuple(float(value) for value in image.GetSpacing())
    spacing = (steps[2] if dimension == 3 else 1.0, steps[1], steps[0])
    if dimension == 2:
        return Volume(array, spacing, ("", "", ""), geometry)
    matrix = np.array(image.GetDirection()).reshape(3, 3)
    # ITK's axes point to the left, to the back and up.
    names = [_direction(matrix[:, axis]) for axis in (2, 1, 0)]
    return Volume(array, spacing, (names[0], names[1], names[2]), geometry)


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
    return _npy(read_bytes(path), path)


def _npy(data: bytes, path: Path) -> Volume:
    stream = io.BytesIO(data)
    major, _ = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    _require_size(read_header(stream)[0], path)
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.ndim == 2:
        array = array[None]
    if array.ndim not in (3, 4):
        raise DataError(f"{path}: 2 to 4 dimensions were expected, found shape {array.shape}")
    return Volume(array, None, ("", "", ""))
