"""The files that make one archive: finding its parts by their names and reading them as one stream."""

from __future__ import annotations

import bisect
import io
import math
import re
import struct
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from ultrasam.errors import DataError

_PLAIN = r"(?:tar\.(?:gz|bz2|xz)|tgz|tbz2?|txz|tar|zip|rar|7z)"
# Kind of set, and the name of its files: `stem` is common to them, `number` orders them.
_NAMES = tuple((kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in (
    ("volumes", r"(?P<stem>.+)\.part(?P<number>\d+)\.rar"),
    ("pieces", r"(?P<stem>.+\." + _PLAIN + r")\.(?P<number>\d{3})"),
    # A download site that unpacks zip files has made people call the last part change2zip.
    ("zip", r"(?P<stem>.+)\.(?:z(?P<number>\d{2,})|zip|change2zip)"),
    ("rar", r"(?P<stem>.+)\.(?:rar|r(?P<number>\d{2,}))"),
    ("plain", r"(?P<stem>.+)\." + _PLAIN),
))
_WITHOUT_SUFFIX = re.compile(r"(.+?)\." + _PLAIN, re.IGNORECASE)
# Of the zip format: end record, its 64-bit locator and the 64-bit end record before that.
_END, _LOCATOR, _END64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sLQL"), struct.Struct("<4sQ2H2L4Q")


@dataclass(frozen=True)
class Archive:
    """The files of one archive.

    Attributes:
        files: one file, or the parts in the order of their bytes.
        name: the archive in messages.
        stem: its path without suffixes; where the members go when the archive lies in a folder.
    """

    files: tuple[Path, ...]
    name: str
    stem: Path


def archive_at(path: Path) -> Archive:
    """Return the archive that a file is, or is a part of; its name does not have to be that of an archive."""
    if _match(path.name) is not None:
        for archive in _grouped(path.parent.iterdir(), path.parent, str(path.parent)):
            if path in archive.files:
                return archive
    return Archive((path,), str(path), path)


def archives_among(paths: Sequence[Path], folder: Path, label: str) -> list[Archive]:
    """Return the archives among files of a folder, told by their names, sorted.

    Args:
        paths: files below ``folder``.
        folder: the folder.
        label: what to call the folder in messages.

    Raises:
        DataError: the last part of a zip archive, or a part in the middle, is missing.
    """
    return list(_grouped(paths, folder, label))


def _match(name: str) -> tuple[str, str, float] | None:
    """Return kind, stem and place among the parts of a file that has the name of an archive."""
    for kind, pattern in _NAMES:
        found = pattern.fullmatch(name)
        if found:
            number = found.groupdict().get("number")
            # The part without a number is the last of a zip and the first of a rar.
            unnumbered = math.inf if kind == "zip" else -1
            return kind, found["stem"], unnumbered if number is None else int(number)
    return None


def _grouped(paths: Iterable[Path], folder: Path, label: str) -> Iterator[Archive]:
    """Yield the archives among files, sorted by the names of their first files."""
    groups: dict[tuple[Path, str, str], list[tuple[float, Path]]] = {}
    for path in paths:
        found = _match(path.name)
        if found is not None and path.is_file():
            kind, stem, place = found
            groups.setdefault((path.parent, stem, kind), []).append((place, path))
    for (parent, stem, kind), parts in sorted(groups.items()):
        places, files = zip(*sorted(parts), strict=True)
        if kind == "rar" and places[0] != -1:
            continue  # something else that ends in .r01
        main = files[-1] if kind == "zip" else files[0]
        name = f"{label}/{main.relative_to(folder).as_posix()}"
        if kind == "zip" and places[-1] != math.inf:
            raise DataError(f"{name}: the last part {stem}.zip of this split archive is not there; get it too")
        if kind == "pieces":
            _require_row(places, name, f"{stem}.", 3)
        without = _WITHOUT_SUFFIX.fullmatch(stem)
        yield Archive(files, name, parent / (without[1] if kind == "pieces" and without else stem))


def _require_row(found: Sequence[float], name: str, before: str, digits: int, count: int | None = None) -> None:
    """Raise DataError unless the parts are numbered 1, 2, ... up to the last found, or up to ``count``.

    Args:
        found: numbers of the parts.
        name: the archive in messages.
        before: name of a part before its number.
        digits: of the number.
        count: how many parts there should be, where that is known.
    """
    missing = sorted(set(range(1, (count or int(max(found))) + 1)).difference(found))
    if missing:
        raise DataError(f"{name}: the part {before}{missing[0]:0{digits}d} of this split archive is not there; "
                        "get all parts")


class _Joined(io.RawIOBase):
    """Files and bytes one after the other as one stream that can be read and sought."""

    def __init__(self, pieces: Sequence[Path | bytes]) -> None:
        super().__init__()
        self.streams = [io.BytesIO(piece) if isinstance(piece, bytes) else piece.open("rb") for piece in pieces]
        self.starts = [0]
        for stream in self.streams:
            self.starts.append(self.starts[-1] + stream.seek(0, io.SEEK_END))
        self.place = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Return the place in bytes."""
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place and return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.starts[-1]}[whence]
        if base + offset < 0:
            raise OSError(f"a place in the file was expected, found {base + offset}")
        self.place = base + offset
        return self.place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer up to the end of one piece and return the number of bytes."""
        if self.place >= self.starts[-1]:
            return 0
        index = bisect.bisect_right(self.starts, self.place) - 1
        stream = self.streams[index]
        stream.seek(self.place - self.starts[index])
        data = stream.read(min(len(buffer), self.starts[index + 1] - self.place))
        buffer[: len(data)] = data
        self.place += len(data)
        return len(data)

    def close(self) -> None:
        """Close all pieces."""
        for stream in self.streams:
            stream.close()
        super().close()


@contextmanager
def joined(pieces: Sequence[Path | bytes]) -> Iterator[IO[bytes]]:
    """Give files and bytes as one stream."""
    with io.BufferedReader(_Joined(pieces), 1 << 16) as stream:
        yield cast("IO[bytes]", stream)


@dataclass(frozen=True)
class _ZipEnd:
    """What the end record of a zip archive says: numbers of disks from 0, sizes and places in bytes."""

    disk: int
    directory_disk: int
    entries: int
    directory_size: int
    directory_place: int


@contextmanager
def open_zip(stream: IO[bytes], archive: Archive) -> Iterator[zipfile.ZipFile]:
    """Give the zip archive of a stream over its files; those split over several disks too.

    Raises:
        DataError: cut off, or a part is missing.
    """
    end = _zip_end(stream)
    if end is None:
        raise DataError(f"{archive.name}: the zip archive has no directory at its end, it is cut off; "
                        "download it again")
    if end.disk == 0:
        # Parts of 7-Zip are plain pieces; a whole archive may lie beside parts that are not its own.
        stream.seek(0)
        with zipfile.ZipFile(stream) as whole:
            yield whole
        return
    files, last = archive.files, archive.files[-1]
    numbers = [found[2] for found in (_match(path.name) for path in files) if found is not None]
    _require_row(numbers[:-1], archive.name, f"{archive.stem.name}.z", 2, end.disk)
    with joined([*files, _plain_end(end, files)]) as rebuilt, zipfile.ZipFile(rebuilt) as zipped:
        starts = _starts(files)
        for entry in zipped.infolist():
            if entry.volume >= len(files):
                raise DataError(f"{archive.name}: {entry.filename} is said to lie in part {entry.volume + 1} of "
                                f"{len(files)} ({last.name} is the last); download the parts again")
            entry.header_offset += starts[entry.volume]
            # Newer versions of zipfile derive from the places where each entry must end; they were not these.
            if hasattr(entry, "_end_offset"):
                entry._end_offset = None
        yield zipped


def _starts(files: Sequence[Path]) -> list[int]:
    """Return where each file begins in the stream over all of them."""
    starts = [0]
    for path in files:
        starts.append(starts[-1] + path.stat().st_size)
    return starts


def _zip_end(stream: IO[bytes]) -> _ZipEnd | None:
    """Return the end record of a zip archive, None where there is none."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(size - (1 << 16) - _END.size - _LOCATOR.size - _END64.size, 0))
    tail = stream.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        return None
    _, disk, directory_disk, _, entries, length, place, _ = _END.unpack_from(tail, at)
    before = at - _LOCATOR.size - _END64.size
    if before >= 0 and tail[before:before + 4] == b"PK\x06\x06" and tail[at - _LOCATOR.size:][:4] == b"PK\x06\x07":
        _, _, _, _, disk, directory_disk, _, entries, length, place = _END64.unpack_from(tail, before)
    return _ZipEnd(disk, directory_disk, entries, length, place)


def _plain_end(end: _ZipEnd, files: Sequence[Path]) -> bytes:
    """Return a directory and an end record as if the archive were one file; zipfile refuses those of several disks.

    The directory is repeated behind the last part, since zipfile wants it just before the end record.
    """
    with joined(files) as stream:
        stream.seek(_starts(files)[end.directory_disk] + end.directory_place)
        directory = stream.read(end.directory_size)
    place = _starts(files)[-1]
    record = _END64.pack(b"PK\x06\x06", _END64.size - 12, 45, 45, 0, 0, end.entries, end.entries, len(directory), place)
    locator = _LOCATOR.pack(b"PK\x06\x07", 0, place + len(directory), 1)
    most = 0xFFFFFFFF
    return directory + record + locator + _END.pack(b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, most, most, 0)
