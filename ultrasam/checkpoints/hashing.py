"""Hashes of weight files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ultrasam.errors import CheckpointError


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits.

    Raises:
        CheckpointError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise CheckpointError(f"the weight file {path} cannot be read ({error}); check the path") from error
    return digest.hexdigest()


def require_sha256(path: str | Path, expected: str) -> None:
    """Check a file's hash.

    Raises:
        CheckpointError: it is another.
    """
    found = sha256_of(path)
    if found != expected.strip().lower():
        raise CheckpointError(f"{path} has the SHA-256 {found}, expected {expected}; download the file again")
