"""The raw files of a dataset: a folder, or a zip or tar archive unpacked safely."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from ultrasam.errors import DataError

_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".rar", ".7z")
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError,
           NotImplementedError)


def find_one(root: Path, name: str) -> Path:
    """Return the one file called ``name`` at or below ``root``.

    Raises:
        DataError: none or several; names archives lying there, which are a common cause.
    """
    found = sorted(path for path in root.rglob(name) if path.is_file() and "__MACOSX" not in path.parts)
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(str(path.parent) for path in found[:4])
        raise DataError(f"{root}: one {name} was expected, found {len(found)} (in {listed}); name one folder")
    archives = sorted(path.name for path in root.iterdir() if path.name.lower().endswith(_ARCHIVE_SUFFIXES))
    hint = f"; it holds {', '.join(archives[:4])}: give that archive as the source" if archives else ""
    raise DataError(f"{root}: {name} was expected in the raw files, found none{hint}")


def is_archive(path: Path) -> bool:
    """Whether the file is a zip or tar archive by its content."""
    return path.is_file() and (zipfile.is_zipfile(path) or tarfile.is_tarfile(path))


@contextmanager
def open_source(source: Path, scratch: Path) -> Iterator[Path]:
    """Give the folder of raw files; an archive is unpacked into ``scratch`` for as long as it is used.

    Args:
        source: folder, or zip or tar archive.
        scratch: folder to make for an archive's files; removed afterwards.

    Raises:
        DataError: no such source, not an archive that can be opened, or an archive with unsafe members.
    """
    if source.is_dir():
        yield source
        return
    if not source.exists():
        raise DataError(f"{source}: a folder or an archive of raw files was expected, found nothing there")
    if not is_archive(source):
        raise DataError(f"{source}: a folder, zip or tar archive was expected, found another kind of file; "
                        "unpack it and give the folder")
    try:
        unpack(source, scratch)
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def unpack(archive: Path, target: Path) -> None:
    """Unpack a zip or tar archive; every member is checked before the first is written.

    Raises:
        DataError: a member leads outside the target, is a link or a device, or the archive is damaged.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                _unpack_zip(zipped, archive, target)
        else:
            with tarfile.open(archive) as tarred:
                _unpack_tar(tarred, archive, target)
    except _DAMAGE as error:
        raise DataError(f"{archive}: the archive cannot be unpacked ({error}); download it again") from error


def _unpack_zip(zipped: zipfile.ZipFile, archive: Path, target: Path) -> None:
    """Write the files of a zip archive below ``target``."""
    files: list[tuple[zipfile.ZipInfo, Path]] = []
    for member in zipped.infolist():
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refusal(archive, member.filename, "is a link or a device")
        path = _inside(archive, member.filename, target)
        if not member.is_dir():
            files.append((member, path))
    for member, path in files:
        with zipped.open(member) as stream:
            _write(stream, path)


def _unpack_tar(tarred: tarfile.TarFile, archive: Path, target: Path) -> None:
    """Write the files of a tar archive below ``target``."""
    files: list[tuple[tarfile.TarInfo, Path]] = []
    for member in tarred.getmembers():
        path = _inside(archive, member.name, target)
        if not (member.isfile() or member.isdir()):
            raise _refusal(archive, member.name, "is a link or a device")
        if member.isfile():
            files.append((member, path))
    for member, path in files:
        stream = tarred.extractfile(member)
        if stream is not None:
            with stream:
                _write(stream, path)


def _inside(archive: Path, name: str, target: Path) -> Path:
    """Return where a member goes; DataError when that is not below the target."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.startswith(("/", "\\")) or PureWindowsPath(name).drive or ".." in parts:
        raise _refusal(archive, name, "leads outside its folder")
    return target.joinpath(*parts)


def _refusal(archive: Path, name: str, reason: str) -> DataError:
    """Return the error for an unsafe member."""
    return DataError(f"{archive}: refused, because its member {name!r} {reason}; nothing was unpacked")


def _write(stream: IO[bytes], path: Path) -> None:
    """Write a member's bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as output:
        shutil.copyfileobj(stream, output, 1 << 20)
