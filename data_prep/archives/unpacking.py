"""What is in a zip, tar, rar or 7z archive, and unpacking it safely.

Every check is made before the first byte of an archive is written: members that lead outside the folder, links and
devices, passwords, missing parts and programs, files in the way, and the room on the disk.
"""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any, cast

from data_prep.archives.parts import Archive, joined, open_zip
from data_prep.archives.reader import Kind, Member, Reader, StaysPackedError, Streams, encrypted
from ultrasam.errors import DataError
from ultrasam.io.files import require_content

_MAGIC = {b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"PK\x07\x08": "zip", b"PK00": "zip",
          b"Rar!\x1a\x07": "rar", b"7z\xbc\xaf\x27\x1c": "7z"}
# Stored, deflated, bzip2 and LZMA: what Python unpacks.
_ZIP_METHODS = {0, 8, 12, 14}
# What common file systems allow.
_NAME_BYTES = 255


class _Zip(Streams):
    """A zip archive."""

    def __init__(self, zipped: zipfile.ZipFile, name: str) -> None:
        self.zipped, self.entries = zipped, zipped.infolist()
        if any(entry.flag_bits & 1 for entry in self.entries):
            raise encrypted(name)
        strange = sorted({entry.compress_type for entry in self.entries} - _ZIP_METHODS)
        if strange:
            raise StaysPackedError(f"{name}: the zip methods {sorted(_ZIP_METHODS)} were expected, found {strange[0]} "
                                   "(9 is Deflate64 of Windows); unpack the archive by hand, for example with 7z")
        self.members = [Member(entry.filename, entry.file_size, self._kind(entry)) for entry in self.entries]

    @staticmethod
    def _kind(entry: zipfile.ZipInfo) -> Kind:
        """Return what an entry is."""
        mode = stat.S_IFMT(entry.external_attr >> 16)  # 0 unless the archive was made on Unix
        if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
            return "other"
        return "folder" if entry.is_dir() else "file"

    def open(self, number: int) -> IO[bytes]:
        """Return the bytes of a member."""
        return self.zipped.open(self.entries[number])


class _Tar(Streams):
    """A tar archive, compressed or not."""

    def __init__(self, tarred: tarfile.TarFile) -> None:
        self.tarred, self.entries = tarred, tarred.getmembers()
        self.members = [Member(entry.name, entry.size, self._kind(entry)) for entry in self.entries]
        # The checksum of a compressed archive stands at its end, where reading the members does not come.
        while cast("IO[bytes]", tarred.fileobj).read(1 << 20):
            pass

    @staticmethod
    def _kind(entry: tarfile.TarInfo) -> Kind:
        """Return what an entry is."""
        return "file" if entry.isfile() else "folder" if entry.isdir() else "other"

    def open(self, number: int) -> IO[bytes]:
        """Return the bytes of a member."""
        return cast("IO[bytes]", self.tarred.extractfile(self.entries[number]))


class _SevenZip(Reader):
    """A 7z archive."""

    def __init__(self, opened: Any, name: str) -> None:
        self.opened, self.name = opened, name
        if opened.needs_password():
            raise encrypted(name)
        self.members = [Member(entry.filename, entry.uncompressed, self._kind(entry)) for entry in opened.files]

    @staticmethod
    def _kind(entry: Any) -> Kind:
        """Return what an entry is."""
        if entry.is_symlink or entry.is_junction or entry.is_socket:
            return "other"
        return "folder" if entry.is_directory else "file" if entry.is_file else "other"

    def extract(self, places: Mapping[Path, int], target: Path) -> None:
        """Write members to their places; py7zr unpacks all of them at once, so they are moved afterwards."""
        target.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=target))
        self.opened.extractall(work)
        found = {}
        for folder, folders, files in os.walk(work):
            for inner in folders:
                Path(folder, inner).chmod(0o755)  # the archive may forbid to look inside
            for file in files:
                path = Path(folder, file)
                found[_place(self.name, path.relative_to(work).as_posix(), target)] = path
        for place in places:
            if place not in found:
                raise DataError(f"{self.name}: the archive cannot be unpacked ({place.name} did not come out of it); "
                                "unpack it by hand")
            place.parent.mkdir(parents=True, exist_ok=True)
            found[place].chmod(0o644)
            found[place].replace(place)
        shutil.rmtree(work)


def is_archive(path: Path) -> bool:
    """Whether the file is a zip, tar, rar or 7z archive by its content."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return _magic(stream.read(16)) is not None or tarfile.is_tarfile(path)


@contextmanager
def open_archive(archive: Archive) -> Iterator[Reader]:
    """Give the reader of an archive; what kind it is, its content tells.

    Raises:
        StaysPackedError: a Git-LFS pointer, a web page, encrypted, of an unknown method, or a program is missing.
        DataError: not an archive, damaged, also when that shows while it is unpacked, or a part is missing.
    """
    with ExitStack() as stack:
        stream = stack.enter_context(joined(archive.files))
        try:
            yield stack.enter_context(_reader(_kind_of(stream, archive.name), stream, archive))
        except _decoder_errors() as error:
            # The decompressors of Python raise OSError without a number; with one it is the disk's.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            found = str(error).strip() or type(error).__name__
            raise DataError(f"{archive.name}: the archive cannot be unpacked ({found}); download it again") from error


def _kind_of(stream: IO[bytes], name: str) -> str:
    """Return the kind of an archive."""
    head = stream.read(512)
    try:
        require_content(head, Path(name))
    except DataError as error:
        raise StaysPackedError(str(error)) from error
    stream.seek(0)
    kind = _magic(head) or ("tar" if tarfile.is_tarfile(stream) else None)
    stream.seek(0)
    if kind is None:
        raise DataError(f"{name}: a zip, tar, rar or 7z archive was expected, found another kind of file; "
                        "give the folder of the raw files, or download it again")
    return kind


def _magic(head: bytes) -> str | None:
    """Return the kind of an archive that its first bytes tell, None for tar and other files."""
    # Not `is_zipfile`: it takes a tar whose last member is a zip for a zip.
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


@contextmanager
def _reader(kind: str, stream: IO[bytes], archive: Archive) -> Iterator[Reader]:
    """Give the reader for a kind of archive."""
    if kind == "zip":
        with open_zip(stream, archive) as zipped:
            yield _Zip(zipped, archive.name)
    elif kind == "tar":
        with tarfile.open(fileobj=stream) as tarred:
            yield _Tar(tarred)
    elif kind == "rar":
        from data_prep.archives.rar import open_rar

        with open_rar(archive.files[0], archive.name) as reader:
            yield reader
    else:
        import py7zr

        try:
            found = py7zr.SevenZipFile(stream)
        except py7zr.exceptions.PasswordRequired as error:
            raise encrypted(archive.name) from error
        with found:
            yield _SevenZip(found, archive.name)


def _decoder_errors() -> tuple[type[Exception], ...]:
    """Return what reading a damaged archive raises; rarfile and py7zr are imported only when something did."""
    import py7zr
    import rarfile

    return (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError,
            NotImplementedError, OSError, rarfile.Error, py7zr.exceptions.ArchiveError)


def plan(archive: Archive, reader: Reader, target: Path) -> dict[Path, int]:
    """Return where each file of an archive goes, as `Reader.extract` wants it.

    The resource files of macOS (``__MACOSX/``, ``._x.png``) are left out; they have the names of images.

    Raises:
        DataError: a member leads outside the target or is a link or a device, one member is a file and a folder,
            the archive holds no files, or the disk has not enough room for them.
    """
    places: dict[Path, int] = {}
    for number, member in enumerate(reader.members):
        path = _place(archive.name, member.name, target)
        if member.kind == "other":
            raise _refusal(archive.name, member.name, "is a link or a device")
        parts = path.relative_to(target).parts
        if member.kind == "folder" or "__MACOSX" in parts[:-1] or (parts and parts[-1].startswith("._")):
            continue
        if path == target:
            raise _refusal(archive.name, member.name, "is a file without a name")
        places[path] = number
    for folder in {parent for path in places for parent in path.parents}:
        if folder in places:
            raise _refusal(archive.name, folder.relative_to(target).as_posix(), "is a file and a folder")
    if not places:
        raise DataError(f"{archive.name}: an archive of raw files was expected, found no file in it; "
                        "download it again")
    _require_room(archive.name, sum(reader.members[number].size for number in places.values()), target)
    return places


def _require_room(name: str, size: int, target: Path) -> None:
    """Raise DataError when the disk of a folder, which may not be there yet, has not enough room."""
    there = next(path for path in (target, *target.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise DataError(f"{name}: its files need {size / 1e9:,.1f} GB, the disk of {there} has {free / 1e9:,.1f} GB "
                        "free; make room, choose another --out, or distrust the archive")


def _place(name: str, member: str, target: Path) -> Path:
    """Return where a member goes; DataError when that is not below the target."""
    parts = PurePosixPath(member.replace("\\", "/")).parts
    if member.startswith(("/", "\\")) or PureWindowsPath(member).drive or ".." in parts:
        raise _refusal(name, member, "leads outside its folder")
    if "\0" in member or any(len(os.fsencode(part)) > _NAME_BYTES for part in parts):
        raise _refusal(name, member, "has a name that no disk takes")
    return target.joinpath(*parts)


def _refusal(name: str, member: str, reason: str) -> DataError:
    """Return the error for an unsafe member."""
    return DataError(f"{name}: refused, because its member {member!r} {reason}; nothing was unpacked")
