"""Opening any ultrasound file: images, DICOM, volumes and videos, told apart by what is in them."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ultrasam.errors import DataError
from ultrasam.io.dicom import is_dicom
from ultrasam.io.files import require_content
from ultrasam.io.images import decode_image
from ultrasam.io.scan_base import FramesScan, Scan
from ultrasam.io.video import VIDEO_SUFFIXES
from ultrasam.io.volumes import Volume, frames_to_uint8, read_volume, read_volume_bytes, suffix_of

__all__ = ["SCAN_SUFFIXES", "Scan", "find_scans", "open_scan", "scan_from_array", "scan_from_bytes"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pnm", ".gif")
VOLUME_SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".npy")
# Of folders, what is taken.
SCAN_SUFFIXES = (*IMAGE_SUFFIXES, ".dcm", ".dicom", *VOLUME_SUFFIXES, *VIDEO_SUFFIXES)
_IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"GIF8")
_VIDEOS = ((0, b"\x1a\x45\xdf\xa3"), (0, b"\0\0\1\xba"), (0, b"\0\0\1\xb3"), (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"))
_HEAD = 500
# Names that programs leave in folders of scans.
_LEFT_OUT = ("DICOMDIR", "Thumbs.db")


def open_scan(path: str | Path) -> Scan:
    """Open an ultrasound file.

    What is in the file tells its kind; the name decides only where the content does not.

    Args:
        path: PNG, JPEG, BMP, TIFF, DICOM, NIfTI, MHA, MHD, NRRD, NPY, or a video such as MP4 and AVI.

    Raises:
        DataError: missing, empty, damaged, of no known kind, or of a size that no ultrasound has.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder, a file was expected; give the files in it or use find_scans")
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; check the path") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)!r} cannot be read ({error}); check path and permissions") from error
    require_content(head, path)
    kind = _kind(head, path, is_dicom(path))
    if kind == "dicom":
        from ultrasam.io.scan_dicom import DicomScan

        return DicomScan(path, path.name)
    if kind == "video":
        from ultrasam.io.scan_video import VideoScan

        return VideoScan(path, path.name)
    if kind == "volume":
        return _volume_scan(read_volume(path), path.name, path)
    return FramesScan(decode_image(path.read_bytes(), path)[None], name=path.name, kind="image", path=path)


def scan_from_bytes(data: bytes, name: str) -> Scan:
    """Open what is in an ultrasound file, for instance of an upload.

    No path is opened that `name` or the data give. Formats whose library reads files only (MHA, NRRD) go through a
    file in a private folder that is gone when this returns.

    Args:
        data: the whole file.
        name: the file's name, for messages and, where the content does not tell, for the kind; folders in it are
            ignored.

    Raises:
        DataError: as :func:`open_scan`; or the pixels of a volume lie in another file.
    """
    name = PurePosixPath(name.replace("\\", "/")).name.replace("\0", "") or "scan"
    path = Path(name)
    require_content(data[:_HEAD], path)
    kind = _kind(data[:_HEAD], path, path.suffix.lower() in (".dcm", ".dicom"))
    if kind == "dicom":
        from ultrasam.io.scan_dicom import DicomScan

        return DicomScan(data, name)
    if kind == "video":
        from ultrasam.io.scan_video import VideoScan

        return VideoScan(data, name)
    if kind == "volume":
        return _volume_scan(read_volume_bytes(data, name), name, None)
    return FramesScan(decode_image(data, path)[None], name=name, kind="image")


def scan_from_array(image: ArrayLike, spacing: Sequence[float] | None = None, name: str = "array") -> Scan:
    """Make a scan of pixels.

    Args:
        image: (height, width) grey, (height, width, 3) RGB or (height, width, 4) with transparency, which is laid
            over black; or frames of these, (frames, height, width[, 3 or 4]). uint8 is kept. Whole numbers from 0 to
            255 are kept too, all others are scaled by their smallest and largest value.
        spacing: millimetres along (rows, columns), if known.
        name: for messages and the names of results.

    Raises:
        DataError: another shape or type, NaN or infinity, or a spacing that is not two positive numbers.
    """
    pixels = np.asarray(image)
    if pixels.dtype.kind not in "buif" or pixels.size == 0:
        raise DataError(f"{name}: real numbers were expected, found shape {pixels.shape} of type {pixels.dtype}")
    return FramesScan(_rgb_frames(pixels, name), name=name, kind="array", spacing=_checked_spacing(spacing, name))


def find_scans(patterns: Iterable[str | Path]) -> list[Path]:
    """List scans by files, folders and patterns.

    Args:
        patterns: files, taken whatever their name; folders, of which all files are taken, in folders below too, that
            have the suffix of a scan or are DICOM by their content; patterns with *, ? or ** of such.

    Returns:
        paths in the order of the patterns, within one sorted; none twice.

    Raises:
        DataError: a pattern finds nothing.
    """
    found: dict[Path, None] = {}
    listed = [patterns] if isinstance(patterns, (str, Path)) else list(patterns)
    for pattern in listed:
        path = Path(pattern)
        if path.is_file():
            new = [path]
        elif path.is_dir():
            new = _scans_in(path)
            if not new:
                raise DataError(f"{path}: a folder with scans ({' '.join(SCAN_SUFFIXES)} or DICOM) was expected, found "
                                "none in it")  # fmt: skip
        else:
            new = _matching(str(pattern))
        found.update(dict.fromkeys(new))
    if not found:
        raise DataError("no scan was given; give files, folders or patterns such as 'scans/*.png'")
    return list(found)


def _matching(pattern: str) -> list[Path]:
    """Return the files of a pattern, with those of the folders that match it."""
    if not glob.has_magic(pattern):
        raise DataError(f"{pattern} does not exist; check the path")
    files: list[Path] = []
    # Path.glob takes no absolute patterns.
    for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207
        path = Path(match)
        # The pattern ** gives the files of a folder beside the folder.
        files += _scans_in(path) if path.is_dir() and "**" not in pattern else [path] if path.is_file() else []
    if not files:
        raise DataError(f"{pattern} matches no file; check the pattern")
    return files


def _scans_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*"))
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
            and path.name not in _LEFT_OUT and (suffix_of(path) in SCAN_SUFFIXES or is_dicom(path))]  # fmt: skip


def _kind(head: bytes, path: Path, named_dicom: bool) -> str:
    """Return image, dicom, volume or video."""
    suffix = suffix_of(path)
    if head[128:132] == b"DICM":
        return "dicom"
    if head.startswith(_IMAGES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return "image"
    if any(head[start:start + len(magic)] == magic for start, magic in _VIDEOS):
        return "video"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide") or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return "video"
    if suffix in VOLUME_SUFFIXES:
        return "volume"
    if named_dicom:
        return "dicom"
    if suffix in VIDEO_SUFFIXES:
        return "video"
    # Everything else may still be one of the many formats of the image library, which says so if not.
    return "image"


def _volume_scan(volume: Volume, name: str, path: Path | None) -> Scan:
    array, where = volume.array, path or name
    coloured = volume.geometry is None or volume.geometry.format == "itk" or _is_rgb_nifti(volume)
    if array.ndim == 4 and not coloured and array.shape[0] == 1:
        # A cine in NIfTI: one slice at many times.
        array = np.moveaxis(array, -1, 0)[:, 0]
    if array.ndim == 4 and array.shape[-1] not in (1, 3, 4):
        raise DataError(f"{where}: slices or frames were expected, found volumes at {array.shape[-1]} times (shape "
                        f"{array.shape}); save each time as a file of its own")  # fmt: skip
    # Only arrays of unknown origin may be pictures with the colour last; geometry tells the axes.
    frames = _rgb_frames(array[0] if array.shape[0] == 1 and volume.geometry is None else array, where) \
        if volume.geometry is None else _in_8_bits(array, where)
    spacing = None if volume.spacing is None else volume.spacing[1:]
    header = replace(volume, array=np.zeros((0, 0, 0), np.uint8))
    return FramesScan(frames, name=name, kind="volume", path=path, spacing=spacing, header=header)


def _is_rgb_nifti(volume: Volume) -> bool:
    assert volume.geometry is not None
    return len(volume.geometry.shape) < volume.array.ndim


def _rgb_frames(pixels: NDArray[Any], where: Path | str) -> NDArray[np.uint8]:
    """Return (frames, height, width) or (frames, height, width, 3) of pixels that may be a single picture."""
    if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[-1] in (3, 4)):
        pixels = pixels[None]
    if pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[-1] not in (1, 3, 4)):
        raise DataError(f"{where}: pixels of the shape (height, width), (height, width, 3) or frames of these were "
                        f"expected, found {pixels.shape}")  # fmt: skip
    return _in_8_bits(pixels, where)


def _in_8_bits(pixels: NDArray[Any], where: Path | str) -> NDArray[np.uint8]:
    eight = frames_to_uint8(pixels, where)
    if eight.ndim == 3:
        return eight
    if eight.shape[-1] == 1:
        return eight[..., 0]
    if eight.shape[-1] == 4:
        return np.rint(eight[..., :3] * (eight[..., 3:] / 255.0)).astype(np.uint8)
    return eight


def _checked_spacing(spacing: Sequence[float] | None, name: str) -> tuple[float, float] | None:
    if spacing is None:
        return None
    rows, columns = (float(spacing[0]), float(spacing[1])) if len(spacing) == 2 else (0.0, 0.0)
    if not (0 < rows < np.inf and 0 < columns < np.inf):
        raise DataError(f"{name}: a spacing of two positive numbers, millimetres along (rows, columns), was expected, "
                        f"found {tuple(spacing)}")  # fmt: skip
    return rows, columns


def listed_scans(patterns: Sequence[str]) -> list[tuple[Path, str]]:
    """Return every scan with its name: its path as seen from the folder that was given, or the file's own name.

    Raises:
        DataError: a pattern finds nothing.
    """
    found: dict[Path, str] = {}
    for pattern in patterns:
        folder = Path(pattern)
        for path in find_scans([pattern]):
            found.setdefault(path, path.relative_to(folder).as_posix() if folder.is_dir() else path.name)
    return list(found.items())
