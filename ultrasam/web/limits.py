"""What the server keeps and takes, and its refusals."""

from __future__ import annotations

from dataclasses import dataclass

from ultrasam.errors import UltraSamError

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bounds of one server.

    Attributes:
        upload_bytes: size of one file that is opened.
        memory_bytes: files held open and on their way, all together.
        cache_bytes: encoded frames, all together.
        sessions: files open at once; the one not used for longest makes room.
        idle_seconds: a file not used for so long is closed.
        objects: objects in one file.
        points: points of one object on one frame.
        steps: steps that can be undone.
    """

    upload_bytes: int = 256 * MEGABYTE
    memory_bytes: int = 1024 * MEGABYTE
    cache_bytes: int = 512 * MEGABYTE
    sessions: int = 16
    idle_seconds: float = 3600.0
    objects: int = 99
    points: int = 200
    steps: int = 200


class WebError(UltraSamError):
    """A request that is refused: one sentence for the reader of the page, and an HTTP status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def megabytes(count: float) -> str:
    """Return a size in words, such as "1.5 MB"."""
    value = count / MEGABYTE
    return f"{value:.1f} MB" if value < 10 else f"{value:.0f} MB"
