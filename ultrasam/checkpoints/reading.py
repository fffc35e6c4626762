"""Loading of weight files that never runs what a file contains."""

from __future__ import annotations

import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ultrasam.checkpoints.hashing import require_sha256
from ultrasam.checkpoints.unpickle import LEGACY_START, read_legacy, read_zip
from ultrasam.errors import CheckpointError, DataError
from ultrasam.io.files import require_content

# What readers of zip, pickle and safetensors raise at malformed input.
MALFORMED = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    RuntimeError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    OverflowError,
    MemoryError,
    RecursionError,
    struct.error,
    ImportError,
)


def safe_load(path: str | Path, *, sha256: str | None = None) -> dict[str, Any]:
    """Read a PyTorch (.pth, .pt, .ckpt) or safetensors file without running any code in it.

    PyTorch files go through ``torch.load(weights_only=True)``; those that hold foreign objects go through our
    restricted reader, in which such objects become inert ``Placeholder``s.

    Args:
        path: the file.
        sha256: hexadecimal hash that the file must have.

    Returns:
        The dictionary in the file, tensors on the CPU. Of safetensors: ``state_dict`` and perhaps ``card``.

    Raises:
        CheckpointError: missing, a folder, empty, a web page, a pointer, truncated, of another kind or hash.
    """
    path = Path(path)
    head = _head(path)
    if sha256 is not None:
        require_sha256(path, sha256)
    if head.startswith(b"PK\x03\x04"):
        content = _read_torch(path, read_zip)
    elif head.startswith(LEGACY_START):
        content = _read_torch(path, read_legacy)
    elif _is_safetensors(head):
        content = _read_safetensors(path)
    else:
        raise CheckpointError(
            f"{path} is no PyTorch or safetensors file (it begins with {head[:8]!r}); download it again"
        )
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a dictionary of weights")
    return dict(content)


def _head(path: Path) -> bytes:
    """Return the first bytes of a file that is one."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, a weight file was expected")
    try:
        with path.open("rb") as stream:
            head = stream.read(512)
    except FileNotFoundError as error:
        raise CheckpointError(f"the weight file {path} does not exist; check the path") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read ({error}); check its permissions") from error
    try:
        require_content(head, path)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    return head


def _read_torch(path: Path, restricted: Callable[[Path], Any]) -> Any:
    """Read with PyTorch's own safe loader, else with ours."""
    if restricted is read_zip:
        _require_plain_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except MALFORMED:
        pass
    try:
        return restricted(path)
    except MALFORMED as error:
        raise _damaged(path, error) from error


def _require_plain_archive(path: Path) -> None:
    """Refuse TorchScript archives, which are programs, and zip files that end too early."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _damaged(path, error) from error
    if any(name.endswith("constants.pkl") for name in names):
        raise CheckpointError(f"{path} is a TorchScript program, not weights; export its state dict instead")


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CheckpointError(
        f"{path} is damaged or cut off ({reason}); compare its size with the source and download it again"
    )


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 9 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < 100_000_000


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            content: dict[str, Any] = {"state_dict": {name: file.get_tensor(name) for name in file.keys()}}  # noqa: SIM118
            metadata = file.metadata() or {}
        if "card" in metadata:
            content["card"] = json.loads(metadata["card"])
    except (SafetensorError, *MALFORMED) as error:
        raise _damaged(path, error) from error
    return content
