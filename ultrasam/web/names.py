"""Names of files that come from a browser or go to one; never a path."""

from __future__ import annotations

import unicodedata
from urllib.parse import quote

_LENGTH = 120


def safe_name(text: str, otherwise: str = "image") -> str:
    """Return the last part of a name, without separators, control characters and leading dots.

    The suffix, by which the reader is chosen, is kept also where the name is too long.
    """
    last = text.replace("\\", "/").rpartition("/")[2]
    shown = "".join(letter for letter in last if unicodedata.category(letter)[0] != "C" and letter not in '<>:"|?*')
    shown = shown.strip().lstrip(".").strip()
    if len(shown) > _LENGTH:
        shown = shown[: _LENGTH - 16] + shown[-16:]
    return shown or otherwise


def attachment(name: str) -> str:
    """Return a Content-Disposition header that saves a file under a name of any script."""
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._- ") else "_" for letter in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
