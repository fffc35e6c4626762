"""Reading the dictionaries of arrays that some datasets keep pickled in .npy files, without running their code.

A pickle can name any function of any module and have it called. Here three names are known, those with which
NumPy writes an array, and none of them leads to NumPy: they lead to the classes below, which only take notes.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ultrasam.errors import DataError
from ultrasam.io.files import read_bytes

# What may be in the dictionaries beside arrays and further dictionaries.
_PLAIN = (str, int, float, bool, type(None))
_NUMERIC = re.compile(r"[buif][1248]")
_DEPTH = 8
# Wrong numbers in a pickle fail in many ways, with errors of these kinds.
_DAMAGE = (pickle.UnpicklingError, ValueError, TypeError, AttributeError, KeyError, IndexError, EOFError,
           OverflowError, MemoryError, RecursionError)


def read_pickled_dict(path: str | Path) -> dict[str, Any]:
    """Return the dictionary of a .npy file that ``numpy.save`` wrote from one dictionary.

    Args:
        path: the file.

    Returns:
        text to array, number, text, None, or another such dictionary. Arrays have the shape and numeric
        type of the file, in the byte order of this machine, and can be written to.

    Raises:
        DataError: the file is no such file, is damaged, or holds anything else; the code it names is not run.
    """
    path = Path(path)
    stream = io.BytesIO(read_bytes(path))
    try:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise pickle.UnpicklingError(f"version {version} of the format")
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(stream)
        if dtype != np.dtype(object) or shape != ():
            raise pickle.UnpicklingError(f"an array of type {dtype} and shape {shape}")
        whole = _Unpickler(stream).load()
        if not isinstance(whole, _Array):
            raise pickle.UnpicklingError(f"a {type(whole).__name__} in place of an array")
        return _checked(whole.single(), _DEPTH, {})
    except _DAMAGE as error:
        raise DataError(f"{path}: a dictionary of arrays, as numpy.save writes it, was expected, found "
                        f"{error or type(error).__name__}; nothing of it was run, get the file again") from error


class _Type:
    """Note of a NumPy element type."""

    def __init__(self, name: object, *_: object) -> None:
        if not isinstance(name, str) or not (_NUMERIC.fullmatch(name) or name == "O8"):
            raise pickle.UnpicklingError(f"the element type {name!r}")
        self.name, self.order = name, "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        # Byte order stands second; what follows describes structured types, of which there are none here.
        if state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"the byte order {state[1]!r}")
        self.order = state[1]


class _Array:
    """Note of an array; numeric ones are made from their bytes."""

    def __init__(self, *_: object) -> None:
        self.value: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_column, content = state
        if not isinstance(kind, _Type) or not isinstance(shape, tuple) or any(
                type(side) is not int or side < 0 for side in shape):
            raise pickle.UnpicklingError("an array without element type or shape")
        if kind.name == "O8":
            if not isinstance(content, list) or len(content) != math.prod(shape):
                raise pickle.UnpicklingError("an array of objects without its objects")
            self.value = content
            return
        if not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array without its bytes")
        flat = np.frombuffer(content, np.dtype(f"{kind.order}{kind.name}"))
        native = flat.astype(flat.dtype.newbyteorder("="))
        self.value = native.reshape(shape, order="F" if by_column else "C")

    def single(self) -> Any:
        """Return the one object of an array of objects."""
        if not isinstance(self.value, list) or len(self.value) != 1:
            raise pickle.UnpicklingError("an array of numbers or of several objects")
        return self.value[0]


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows how NumPy writes arrays, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name of the file stands for; nothing is imported.

        The answer is a new object every time: a pickle can set attributes of what it gets.
        """
        if (module, name) in (("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")):
            return partial(_Array)
        if (module, name) == ("numpy", "dtype"):
            return partial(_Type)
        if (module, name) == ("numpy", "ndarray"):
            return None
        raise pickle.UnpicklingError(f"the name {module}.{name}, which could run code")

    def persistent_load(self, pid: Any) -> Any:
        """Refuse: arrays need no outside records."""
        raise pickle.UnpicklingError("a record outside the file")


def _checked(found: object, depth: int, done: dict[int, dict[str, Any]]) -> Any:
    """Return what was unpickled with arrays in place of notes.

    Args:
        found: a part of it.
        depth: how many levels of dictionaries may follow.
        done: results by identity; a few bytes can name one dictionary a million times.

    Raises:
        pickle.UnpicklingError: anything that is not expected.
    """
    if isinstance(found, dict) and depth:
        if not all(isinstance(name, str) for name in found):
            raise pickle.UnpicklingError("a dictionary whose keys are not texts")
        if id(found) not in done:
            done[id(found)] = {name: _checked(value, depth - 1, done) for name, value in found.items()}
        return done[id(found)]
    if depth == _DEPTH:
        raise pickle.UnpicklingError(f"a {type(found).__name__} in place of a dictionary")
    if isinstance(found, _Array) and isinstance(found.value, np.ndarray):
        return found.value
    if isinstance(found, _PLAIN):
        return found
    raise pickle.UnpicklingError(f"a {type(found).__name__} among the arrays")
