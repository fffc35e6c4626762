"""Writing predicted masks as a label volume on the grid of the scan that they belong to."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrasam.errors import DataError
from ultrasam.io.files import write_atomic
from ultrasam.io.outputs import Labels, Stack, label_map
from ultrasam.io.scan_base import Scan
from ultrasam.io.volumes import Geometry, Volume


def volume_suffix(scan: Scan) -> str:
    """Return the suffix of label volumes of a scan: that of its own format (NRRD for NRRD, MHA for MHD), else NIfTI."""
    geometry = _geometry(scan)
    if geometry is not None and geometry.format == "itk":
        return ".nrrd" if scan.name.lower().endswith(".nrrd") else ".mha"
    return ".nii.gz"


def label_volume(masks: Mapping[int, Stack], scan: Scan) -> Labels:
    """Return the label maps of a scan's frames, (frames, height, width) uint8 or uint16; 0 in frames without masks.

    Args:
        masks: frame to (N, H, W) bool; an object has the same place in all frames. Of overlapping ones the smallest is
            on top, as in `ultrasam.io.outputs.label_map`.
        scan: the scan.

    Raises:
        DataError: a frame that the scan does not have, or masks of another size.
    """
    depth = max((len(stack) for stack in masks.values()), default=0)
    volume: Labels = np.zeros((scan.frames, *scan.size), np.uint8 if depth <= 255 else np.uint16)
    for frame, stack in masks.items():
        if not 0 <= frame < scan.frames or stack.shape[1:] != scan.size:
            raise DataError(f"{scan.name} has {scan.frames} frames of {scan.size} (height, width), found masks "
                            f"of frame {frame} and size {stack.shape[1:]}")  # fmt: skip
        volume[frame] = label_map(stack, depth)[0]
    return volume


def write_label_volume(path: str | Path, masks: Mapping[int, Stack], scan: Scan) -> None:
    """Write label maps so that every voxel lies where the scan's own lies.

    NIfTI keeps the header, axes and affine of the scan's file; MHA and NRRD its origin, spacing and directions. Scans
    of other kinds give a NIfTI file of the axes (x, y, frame) with the pixel size, where it is known, and without a
    position in space (its codes say so).

    Args:
        path: the file; its suffix must be that of :func:`volume_suffix`, or .nii for NIfTI.
        masks: frame to (N, H, W) bool.
        scan: the scan.

    Raises:
        DataError: as :func:`label_volume`, another suffix, or the file cannot be written.
    """
    path = Path(path)
    expected = volume_suffix(scan)
    name = path.name.lower()
    if not name.endswith(expected) and not (expected == ".nii.gz" and name.endswith(".nii")):
        raise DataError(f"{path}: labels of {scan.name} are written as {expected}, found another suffix")
    labels, geometry = label_volume(masks, scan), _geometry(scan)
    if geometry is not None and geometry.format == "itk":
        data = _itk(labels, geometry, expected)
    else:
        data = _nifti(labels, geometry, scan)
        if name.endswith(".gz"):
            data = _packed(data)
    write_atomic(path, data)


def _geometry(scan: Scan) -> Geometry | None:
    return scan.header.geometry if isinstance(scan.header, Volume) else None


def _nifti(labels: NDArray[Any], geometry: Geometry | None, scan: Scan) -> bytes:
    import nibabel

    array = labels.transpose(2, 1, 0)
    if geometry is None or geometry.nifti is None:
        image = nibabel.Nifti1Image(array, None)
        rows, columns = scan.spacing or (1.0, 1.0)
        image.header.set_zooms((columns, rows, 1.0))
        image.header.set_xyzt_units("mm" if scan.spacing else "unknown")
        return image.to_bytes()
    header, affine = geometry.nifti
    header = header.copy()
    header.set_data_dtype(labels.dtype)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_max"], header["cal_min"] = 0, 0
    header.set_intent("none")
    shape = geometry.shape
    # What is beyond three dimensions is colour or, for a single slice, time.
    timed = len(shape) == 4 and shape[2] == 1 and labels.shape[0] == shape[3]
    array = array[:, :, None] if timed else array.reshape(shape[:3])
    stated = bool(int(header["sform_code"]) or int(header["qform_code"]))
    kind = nibabel.Nifti2Image if max(array.shape) > 32767 else nibabel.Nifti1Image
    image = kind(np.ascontiguousarray(array), affine if stated else None, header)
    return bytes(image.to_bytes())


def _itk(labels: NDArray[Any], geometry: Geometry, suffix: str) -> bytes:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(labels if len(geometry.shape) == 3 else labels[0])
    image.SetOrigin(geometry.origin)
    image.SetSpacing(geometry.spacing)
    image.SetDirection(geometry.direction)
    # The library writes to a path only; the file appears in its place whole.
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"labels{suffix}"
        SimpleITK.WriteImage(image, str(copy), True)
        return copy.read_bytes()


def _packed(data: bytes) -> bytes:
    import gzip

    # No time of writing in it, so that equal labels give equal files.
    return gzip.compress(data, compresslevel=6, mtime=0)
