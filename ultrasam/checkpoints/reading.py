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
from ultrasam.checkpoints.unpickle import LEGACY_START, CodeInFileError, read_legacy, read_zip
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

# ViT-H with its optimizer is 8 GiB.
MAX_CLAIMED = 32 << 30
MAX_SMALL = 64 << 20


def safe_load(path: str | Path, *, sha256: str | None = None) -> dict[str, Any]:
    """Read a PyTorch (.pth, .pt, .ckpt) or safetensors file without running any code in it.

    PyTorch files go through ``torch.load(weights_only=True)``; those that hold foreign objects go through our
    restricted reader, in which such objects become inert ``Placeholder``s. A file that names functions which run
    programs or change files is refused as a whole.

    Args:
        path: the file.
        sha256: hexadecimal hash that the file must have.

    Returns:
        The dictionary in the file, tensors on the CPU. Of safetensors: ``state_dict`` and perhaps ``card``.

    Raises:
        CheckpointError: missing, a folder, empty, a web page, a pointer, truncated, of another kind or hash, with
            code in it, or larger when read than its size allows.
    """
    path = Path(path)
    read = require_weight_file(path)
    if sha256 is not None:
        require_sha256(path, sha256)
    content = read(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a dictionary of weights")
    _require_size(path, content)
    return dict(content)


def require_weight_file(path: Path) -> Callable[[Path], Any]:
    """Return what reads a file of weights, told by its first bytes.

    Raises:
        CheckpointError: missing, a folder, empty, a web page, a pointer, or of another kind.
    """
    head = _head(path)
    if head.startswith(b"PK\x03\x04"):
        return _read_torch_zip
    if head.startswith(LEGACY_START):
        return _read_torch_legacy
    if _is_safetensors(head):
        return _read_safetensors
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        raise CheckpointError(
            f"{path} is no PyTorch or safetensors file but a bare pickle, which may hold code; "
            "write its tensors with torch.save or safetensors"
        )
    raise CheckpointError(f"{path} is no PyTorch or safetensors file (it begins with {head[:8]!r}); download it again")


def _require_size(path: Path, content: dict[str, Any]) -> None:
    """Refuse tensors that repeat a few stored numbers so often that copying them would fill the memory."""
    allowed = max(MAX_CLAIMED, 2 * path.stat().st_size)
    claimed, waiting, seen = 0, [content], {id(content)}
    while waiting:
        for value in waiting.pop().values():
            if isinstance(value, torch.Tensor):
                claimed += value.numel() * value.element_size()
            elif isinstance(value, dict) and id(value) not in seen:
                # A pickle may hold a dictionary that holds itself.
                seen.add(id(value))
                waiting.append(value)
    if claimed > allowed:
        raise CheckpointError(
            f"{path} claims {claimed / 2**30:,.0f} GiB of tensors in {path.stat().st_size / 2**20:,.1f} MiB; "
            "no network read here is that large, get the file from its source again"
        )


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


def _read_torch_zip(path: Path) -> Any:
    return _read_torch(path, read_zip)


def _read_torch_legacy(path: Path) -> Any:
    return _read_torch(path, read_legacy)


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
    except CodeInFileError as error:
        raise CheckpointError(
            f"{path} names {error}, code that weights never need; it was not run, and the file is refused: "
            "get the weights from their source"
        ) from error
    except MALFORMED as error:
        raise _damaged(path, error) from error


def _require_plain_archive(path: Path) -> None:
    """Refuse TorchScript archives, which are programs, and zip files that end too early."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _damaged(path, error) from error
    size = path.stat().st_size
    # PyTorch stores without compression, so the parts are never larger than the file; entries that overlap are.
    if unpacked > 2 * size + MAX_SMALL:
        raise CheckpointError(
            f"{path} would unpack from {size / 2**20:,.1f} to {unpacked / 2**20:,.0f} MiB, which PyTorch never writes; "
            "get the file from its source again"
        )
    if any(name.endswith("constants.pkl") for name in names):
        raise CheckpointError(f"{path} is a TorchScript program, not weights; export its state dict instead")


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CheckpointError(
        f"{path} is damaged or cut off ({reason}); compare its size with the source and download it again"
    )


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 9 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < 100_000_000


def _read_safetensors(path: Path, tensors: bool = True) -> dict[str, Any]:
    """Read a safetensors file, or with ``tensors=False`` its header alone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = file.keys() if tensors else ()
            content: dict[str, Any] = {"state_dict": {name: file.get_tensor(name) for name in names}}
            metadata = file.metadata() or {}
        if "card" in metadata:
            content["card"] = json.loads(metadata["card"])
    except (SafetensorError, *MALFORMED) as error:
        raise _damaged(path, error) from error
    return content


def read_header(path: str | Path) -> dict[str, Any]:
    """Return what a safetensors file says before its tensors, such as ``card``; nothing for other files.

    Raises:
        CheckpointError: as ``safe_load``, as far as the first bytes tell.
    """
    path = Path(path)
    return _read_safetensors(path, tensors=False) if _is_safetensors(_head(path)) else {}
