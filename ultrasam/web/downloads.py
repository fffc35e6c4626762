"""Result files of an opened file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ultrasam.io.scan import Scan
    from ultrasam.web.study import Study


@dataclass(frozen=True)
class Made:
    """A file to save."""

    name: str
    data: bytes
    media_type: str


def offers(scan: Scan) -> list[dict[str, str]]:
    """Return the kinds of files that there are for a scan."""
    return []


def make(study: Study, kind: str, frame: int) -> Made:
    """Return a file."""
    raise NotImplementedError
