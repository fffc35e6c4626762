"""A reader of PyTorch files that imports nothing: tensors and containers are rebuilt, the rest is inert.

Training tools pickle objects of their own beside the weights (MMEngine's ``HistoryBuffer``, NumPy scalars,
``argparse.Namespace``). Ordinary unpickling would call whatever the file names; here every global outside a
short list becomes a ``Placeholder``, which accepts what pickle does to objects and does nothing.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from ultrasam.errors import CheckpointError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_START = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"

STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}

# Globals that weights never need and that only a file made to run something names. MMEngine's files do name
# ``builtins.getattr``, which is inert here like everything else.
CODE_MODULES = {
    "_pickle", "asyncio", "code", "codeop", "commands", "concurrent", "ctypes", "ftplib", "http", "importlib",
    "multiprocessing", "nt", "os", "pickle", "pip", "popen2", "posix", "pty", "runpy",
    "shutil", "smtplib", "socket", "ssl", "subprocess", "sys", "tempfile", "threading", "timeit", "urllib", "venv",
    "webbrowser",
}  # fmt: skip
CODE_BUILTINS = {
    "__import__", "breakpoint", "compile", "delattr", "eval", "exec", "execfile", "globals", "input", "locals", "open",
    "setattr", "vars",
}  # fmt: skip
CODE_NAMES = {
    ("torch", "load"), ("torch.serialization", "load"), ("torch.jit", "load"), ("numpy", "load"),
    ("numpy.testing._private.utils", "runstring"), ("types", "CodeType"), ("types", "FunctionType"),
}  # fmt: skip
CODE_PACKAGES = ("torch.hub", "torch.package", "torch.utils.cpp_extension")


class CodeInFileError(pickle.UnpicklingError):
    """The file names a function that runs programs or changes files."""


def is_code(module: str, name: str) -> bool:
    """Whether a global of a file is there to run something rather than to describe data."""
    # A dotted name reaches through a module: ("torch", "os.system").
    parts = name.split(".")
    builtin = module in ("builtins", "__builtin__", "__builtins__")
    return (
        module.split(".")[0] in CODE_MODULES
        or bool(set(parts[:-1]) & CODE_MODULES)
        or (builtin and bool(set(parts) & CODE_BUILTINS))
        or (module, name) in CODE_NAMES
        or module.startswith(CODE_PACKAGES)
    )


class Placeholder:
    """Stands for an object of a class that is not loaded. Holds its name, keeps no data."""

    qualified_name = "?"

    def __new__(cls, *args: object, **kwargs: object) -> Placeholder:
        """Accept the arguments of any constructor."""
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __call__(self, *args: object, **kwargs: object) -> Placeholder:
        """Accept being called, as a pickled bound method would be."""
        return self

    def __setstate__(self, state: object) -> None:
        """Drop the state. Being found on the class too, it also keeps pickle from writing to the class."""

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, value: object) -> None:
        """Drop an item."""

    def extend(self, values: object) -> None:
        """Drop items."""

    def add(self, value: object) -> None:
        """Drop an item."""

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"<{self.qualified_name}, not loaded>"


class _Mapping(dict[Any, Any]):
    """An ``OrderedDict`` of the file: items only, no attributes (state dicts carry ``_metadata``)."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None: ...


class _Fixed:
    """A callable or constant offered to the file; pickle's BUILD cannot write attributes to it."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: object) -> Any:
        return self.function(*args)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a file may not change the reader")


class _Storage(_Fixed):
    """Name of a storage class: nothing but an element type."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(Placeholder)
        self.dtype = dtype


def _rebuild_tensor(
    flat: object, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Tensor:
    """View a flat storage as a tensor; reaching outside it is an error."""
    if not isinstance(flat, Tensor):
        raise pickle.UnpicklingError("a tensor without a storage")
    return flat.as_strided(size, stride, offset)


def _rebuild_tensor_v3(
    flat: object,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    _grad: object,
    _hooks: object,
    dtype: object,
    *_: object,
) -> Tensor:
    """As ``_rebuild_tensor``, where the element type stands beside an untyped storage."""
    if not isinstance(flat, Tensor) or not isinstance(dtype, torch.dtype):
        raise pickle.UnpicklingError("a tensor without a storage or an element type")
    return flat.view(dtype).as_strided(size, stride, offset)


def _rebuild_parameter(data: object, *_: object) -> object:
    return data


class RestrictedUnpickler(pickle.Unpickler):
    """Unpickle one stream.

    Args:
        stream: the pickle.
        storage: returns the flat tensor of a storage from (dtype, key, number of elements, view).
    """

    def __init__(
        self, stream: IO[bytes], storage: Callable[[torch.dtype, str, int, object], Tensor] | None = None
    ) -> None:
        super().__init__(stream, encoding="utf-8")
        self.storage = storage
        self.code: list[str] = []

    def load(self) -> Any:
        """Return what the pickle describes.

        Raises:
            CodeInFileError: it names a function that runs programs or changes files. Nothing of it was run.
        """
        result = super().load()
        if self.code:
            raise CodeInFileError(self.code[0])
        return result

    def find_class(self, module: str, name: str) -> Any:
        """Return what a global of the file stands for; nothing is imported."""
        if is_code(module, name):
            self.code.append(f"{module}.{name}")
        if (module, name) == ("collections", "OrderedDict"):
            return _Mapping
        if module in ("torch", "torch.storage") and name in STORAGES:
            return _Storage(STORAGES[name])
        if (module, name) == ("torch", "Size"):
            return _Fixed(tuple)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module == "torch._utils":
            rebuild: dict[str, Callable[..., Any]] = {
                "_rebuild_tensor": _rebuild_tensor,
                "_rebuild_tensor_v2": _rebuild_tensor,
                "_rebuild_tensor_v3": _rebuild_tensor_v3,
                "_rebuild_parameter": _rebuild_parameter,
                "_rebuild_parameter_with_state": _rebuild_parameter,
            }
            if name in rebuild:
                return _Fixed(rebuild[name])
        # A class of its own for every global, so that no file can reach another file's.
        return type("Placeholder", (Placeholder,), {"qualified_name": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:
        """Return the flat tensor that a storage record names."""
        match pid:
            case ("storage", _Storage() as kind, str() as key, _, int() as count, *view) if self.storage:
                return self.storage(kind.dtype, key, count, view[0] if view else None)
        raise pickle.UnpicklingError("an unknown kind of record")


def _bytes_tensor(data: bytearray) -> Tensor:
    # PyTorch refuses an empty buffer.
    return torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def read_zip(path: Path) -> Any:
    """Read a file of ``torch.save`` (a zip archive).

    Raises:
        CheckpointError: the archive is of another kind.
        zipfile.BadZipFile, pickle.UnpicklingError and whatever a malformed pickle leads to.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            held = ", ".join(names[:3]) or "nothing"
            raise CheckpointError(
                f"{path} is a zip archive but no PyTorch file (it holds {held}); give the .pth file itself"
            )
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise CheckpointError(f"{path} was written on a big-endian machine; write it anew on another one")
        stored: dict[str, Tensor] = {}

        def storage(dtype: torch.dtype, key: str, count: int, view: object) -> Tensor:
            if key not in stored:
                data = bytearray(archive.read(f"{root}data/{key}"))
                stored[key] = _bytes_tensor(data)
            return stored[key].view(dtype)

        return RestrictedUnpickler(io.BytesIO(archive.read(pickles[0])), storage).load()


def read_legacy(path: Path) -> Any:
    """Read a file that ``torch.save`` wrote before PyTorch 1.6: pickles one after another, then the storages.

    Raises:
        pickle.UnpicklingError and whatever a malformed pickle leads to.
    """
    limit = path.stat().st_size
    stored: dict[str, Tensor] = {}

    def storage(dtype: torch.dtype, key: str, count: int, view: object) -> Tensor:
        size = count * dtype.itemsize
        if view is not None:
            raise pickle.UnpicklingError("views of storages are not supported")
        if not 0 <= size <= limit:
            raise pickle.UnpicklingError(f"a storage of {size} bytes in a file of {limit}")
        if key not in stored:
            # Filled below: the numbers stand behind the pickle that names them.
            stored[key] = torch.zeros(size, dtype=torch.uint8)
        return stored[key].view(dtype)

    with path.open("rb") as stream:
        if RestrictedUnpickler(stream).load() != LEGACY_MAGIC:
            raise pickle.UnpicklingError("not a PyTorch file")
        RestrictedUnpickler(stream).load()
        system = RestrictedUnpickler(stream).load()
        if isinstance(system, dict) and system.get("little_endian") is False:
            raise pickle.UnpicklingError("written on a big-endian machine")
        result = RestrictedUnpickler(stream, storage).load()
        for key in RestrictedUnpickler(stream).load():
            (count,) = struct.unpack("<q", stream.read(8))
            target = stored[key]
            data = bytearray(stream.read(target.numel()))
            if len(data) != target.numel() or not 0 <= count <= target.numel():
                raise EOFError(f"storage {key} is cut off")
            target.copy_(_bytes_tensor(data))
    return result
