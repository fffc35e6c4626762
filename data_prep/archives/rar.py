"""Reading rar archives: rarfile lists them, a program of the machine unpacks them."""

from __future__ import annotations

import shutil
import stat
import subprocess
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, cast

import rarfile

from data_prep.archives.reader import Kind, Member, Reader, StaysPackedError, encrypted, write_member

_STORED = 0x30
# Each writes all files of the archive that is added to the standard output, one after the other.
_PROGRAMS: Mapping[str, Sequence[str]] = {
    "unrar": ("p", "-inul", "-p-", "--"),
    "unar": ("-q", "-p", "", "-o", "-"),
    "bsdtar": ("-x", "-O", "-f"),
    "7z": ("e", "-so", "-bb0", "-p", "--"),
    "7zz": ("e", "-so", "-bb0", "-p", "--"),
}


class RarReader(Reader):
    """A rar archive; its further volumes are found by their names."""

    def __init__(self, path: Path, opened: rarfile.RarFile, name: str) -> None:
        self.path, self.opened, self.name, self.entries = path, opened, name, opened.infolist()
        if opened.needs_password() or any(entry.needs_password() for entry in self.entries):
            raise encrypted(name)
        self.members = [Member(entry.filename, entry.file_size, _kind(entry)) for entry in self.entries]

    def extract(self, places: Mapping[Path, int], target: Path) -> None:
        """Write members to their places."""
        files = [(number, entry) for number, entry in enumerate(self.entries) if entry.is_file()]
        if all(entry.compress_type == _STORED for _, entry in files):
            for path, number in places.items():
                with self.opened.open(self.entries[number]) as stream:
                    write_member(stream, path)
            return
        paths = {number: path for path, number in places.items()}
        first = next(entry for _, entry in files if entry.file_size)
        # One pass over all files: in solid archives, opening each would unpack all those before it again.
        with _running(self._program(first), self.path) as stream:
            for number, entry in files:
                _copy(stream, entry, paths.get(number))

    def _program(self, first: Any) -> str:
        """Return the first program of the machine that unpacks the first file (of those that are not empty).

        That it is there is not enough: the 7z of Debian opens no rar, and others know only old kinds.
        """
        failed = []
        for program in _PROGRAMS:
            if not _is_there(program):
                continue
            try:
                with _running(program, self.path) as stream:
                    _copy(stream, first, None)
            except rarfile.BadRarFile:
                failed.append(program)
            else:
                return program
        found = f"{' and '.join(failed)} cannot unpack this one" if failed else "none of them is there"
        raise StaysPackedError(
            f"{self.name}: rar archives need one of the programs {', '.join(_PROGRAMS)}; {found}; install one (Debian "
            "and Ubuntu: apt install unar, macOS: brew install unar), or unpack it by hand and give the folder"
        )


@contextmanager
def open_rar(path: Path, name: str) -> Iterator[Reader]:
    """Give the reader of a rar archive.

    Args:
        path: its first volume.
        name: the archive in messages.
    """
    with rarfile.RarFile(path, errors="strict") as opened:
        yield RarReader(path, opened, name)


def _kind(entry: Any) -> Kind:
    """Return what an entry is."""
    mode = stat.S_IFMT(entry.mode or 0)
    if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "other"
    return "folder" if entry.is_dir() else "file" if entry.is_file() else "other"


def _is_there(program: str) -> bool:
    """Whether a program is installed."""
    if shutil.which(program) is None:
        return False
    # A free program of the same name takes "p" for an archive, and unpacks where it stands.
    return program != "unrar" or b"Roshal" in subprocess.run(
        [program], check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout


@contextmanager
def _running(program: str, path: Path) -> Iterator[IO[bytes]]:
    """Give the standard output of a program that unpacks an archive."""
    command = [program, *_PROGRAMS[program], str(path.absolute())]
    with (
        tempfile.TemporaryDirectory() as empty,
        subprocess.Popen(command, cwd=empty, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL) as process,
    ):
        try:
            yield cast("IO[bytes]", process.stdout)
        finally:
            process.kill()


def _copy(stream: IO[bytes], entry: Any, path: Path | None) -> None:
    """Take one file from the output of a program and write it, or check it only when ``path`` is None.

    Raises:
        rarfile.BadRarFile: it is not the file that the archive has there.
    """
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    checksum, left = 0, entry.file_size
    with nullcontext() if path is None else path.open("wb") as output:
        while left:
            data = stream.read(min(left, 1 << 20))
            if not data:
                break
            checksum, left = zlib.crc32(data, checksum), left - len(data)
            if output is not None:
                output.write(data)
    # Newer archives may have another kind of checksum instead.
    if left or entry.CRC not in (None, checksum):
        raise rarfile.BadRarFile(f"{entry.filename} did not come out whole")
