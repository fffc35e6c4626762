"""What the readers of all kinds of archives have in common."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from ultrasam.errors import DataError

Kind = Literal["file", "folder", "other"]


class StaysPackedError(DataError):
    """Nothing is known to be wrong with an archive, but it cannot be unpacked here: no program, no password."""


@dataclass(frozen=True)
class Member:
    """An entry of an archive: its name there, its size in bytes when unpacked, and what it is."""

    name: str
    size: int
    kind: Kind


class Reader(ABC):
    """An open archive.

    Attributes:
        members: its entries, in its order.
    """

    members: Sequence[Member]

    @abstractmethod
    def extract(self, places: Mapping[Path, int], target: Path) -> None:
        """Write members to their places: path to write, all below ``target``, to number of the member."""


class Streams(Reader):
    """An archive whose members can be opened one by one."""

    @abstractmethod
    def open(self, number: int) -> IO[bytes]:
        """Return the bytes of a member."""

    def extract(self, places: Mapping[Path, int], target: Path) -> None:
        """Write members to their places."""
        for path, number in places.items():
            with self.open(number) as stream:
                write_member(stream, path)


def write_member(stream: IO[bytes], path: Path) -> None:
    """Write the bytes of a member."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as output:
        shutil.copyfileobj(stream, output, 1 << 20)


def encrypted(name: str) -> StaysPackedError:
    """Return the error for an archive with a password."""
    return StaysPackedError(f"{name}: an archive without password was expected, found encrypted files; unpack it with "
                            "its password and give the folder")
