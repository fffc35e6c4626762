"""Reading MATLAB files of every version as plain arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrasam.errors import DataError
from ultrasam.io.files import require_content


def read_mat(path: str | Path) -> dict[str, NDArray[Any]]:
    """Return the numeric arrays of a MATLAB file by name, with MATLAB's axes (row, column, ...).

    Files up to version 7.2 and 7.3 (HDF5, whose axes are stored in reverse) are read alike. Cells, structures, text
    and objects are left out; nothing of the file is run.

    Raises:
        DataError: the file is missing, damaged, no MATLAB file, or holds no numeric array.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; check the path and the data root")
    with path.open("rb") as stream:
        head = stream.read(1024)
    require_content(head, path)
    try:
        arrays = (
            _read_hdf5(path) if b"MATLAB 7.3" in head[:128] or head[:8] == b"\x89HDF\r\n\x1a\n" else _read_old(path)
        )
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        MemoryError,
    ) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: a readable MATLAB file was expected, found: {reason}") from error
    if not arrays:
        raise DataError(f"{path}: a MATLAB file with numeric arrays was expected, found none in it")
    return arrays


def _read_old(path: Path) -> dict[str, NDArray[Any]]:
    import scipy.io

    content = scipy.io.loadmat(path)
    return {
        name: np.asarray(value)
        for name, value in content.items()
        if isinstance(value, np.ndarray) and value.dtype.kind in "buif"
    }


def _read_hdf5(path: Path) -> dict[str, NDArray[Any]]:
    import h5py

    with h5py.File(path, "r") as file:
        return {
            name: np.asarray(item[()]).T
            for name, item in file.items()
            if isinstance(item, h5py.Dataset)
            and item.dtype.kind in "buif"
            and item.attrs.get("MATLAB_class") != b"char"
        }
