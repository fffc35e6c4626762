"""Hashes of weight files, and of the tensors in them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ultrasam.errors import CheckpointError


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits; of a folder's weight files, in the order of their names.

    Raises:
        CheckpointError: it cannot be read.
    """
    path = Path(path)
    digest = hashlib.sha256()
    try:
        for file in _weight_files(path):
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    except OSError as error:
        raise CheckpointError(f"the weight file {path} cannot be read ({error}); check the path") from error
    return digest.hexdigest()


def _weight_files(path: Path) -> list[Path]:
    """Return the file, or the weight files of a Hugging Face folder (only those of the kind that is read)."""
    if not path.is_dir():
        return [path]
    for ending in (".safetensors", ".bin"):
        found = sorted(file for file in path.iterdir() if file.suffix == ending and file.is_file())
        if found:
            return found
    raise CheckpointError(f"{path} is a folder without weight files (.safetensors or .bin); its hash cannot be read")


def require_sha256(path: str | Path, expected: str) -> None:
    """Check a file's hash.

    Raises:
        CheckpointError: it is another.
    """
    found = sha256_of(path)
    if found != expected.strip().lower():
        raise CheckpointError(f"{path} has the SHA-256 {found}, expected {expected}; download the file again")


def tensors_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values; the same for .pth and .safetensors.

    Args:
        state: tensors by name, in any order.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        kind = str(value.dtype).removeprefix("torch.")
        digest.update(f"{name}\0{kind}\0{tuple(value.shape)}\0".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
