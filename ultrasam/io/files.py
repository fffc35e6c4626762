"""Reading whole files and writing them atomically, and naming what a file really is."""

from __future__ import annotations

import secrets
from pathlib import Path

from ultrasam.errors import DataError

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def read_bytes(path: str | Path) -> bytes:
    """Read a file that must exist and hold data.

    Raises:
        DataError: missing, a folder, unreadable, empty, a Git-LFS or git-annex pointer, or a web page.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; check the path and the data root") from error
    except IsADirectoryError as error:
        raise DataError(f"{path} is a folder, a file was expected") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)!r} cannot be read ({error}); check path and permissions") from error
    require_content(data, path)
    return data


def require_content(head: bytes, path: Path) -> None:
    """Refuse an empty file and the texts that stand in for a file that was not downloaded.

    Args:
        head: the first bytes of the file (500 are enough).
        path: the file, for the message.

    Raises:
        DataError: there is nothing of the user's in it.
    """
    if not head:
        raise DataError(f"{path} is empty (0 bytes); copy or download it again")
    if head.startswith(_LFS_POINTER):
        raise DataError(f"{path} is a Git-LFS pointer, not the file itself; run 'git lfs pull' to get it")
    if len(head) < 500 and b"/annex/objects/" in head:
        raise DataError(f"{path} is a git-annex pointer, not the file itself; run 'git annex get' on it")
    start = head[:500].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise DataError(f"{path} is a web page (HTML), perhaps of a failed download; download the file again")


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write a file whole or not at all; folders are created.

    Raises:
        DataError: the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error}); check permissions and free space") from error
