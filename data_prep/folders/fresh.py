"""A new folder that appears when it is complete."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ultrasam.errors import ConfigError


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """Give a hidden folder to write into; it takes its final name at the end, and is removed after an error.

    Raises:
        ConfigError: ``out`` is a file or a folder that holds something.
    """
    out = out.absolute()
    check_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    work = out.parent / f".{out.name}.{secrets.token_hex(4)}.partial"
    work.mkdir()
    try:
        yield work
        if out.is_dir():
            out.rmdir()
        work.replace(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def check_free(out: Path) -> None:
    """Raise ConfigError where a folder cannot be written because something is there."""
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise ConfigError(f"{out}: a new or empty folder was expected, found one that holds something or a file; "
                          "name another one or move it away")
