"""The raw files of a dataset: a folder, an archive, or a folder that holds archives."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from data_prep.archives.parts import Archive, archive_at, archives_among
from data_prep.archives.reader import Reader, StaysPackedError
from data_prep.archives.unpacking import is_archive, open_archive, plan
from ultrasam.errors import DataError

__all__ = ["find_one", "is_archive", "open_source", "unpack"]

# Archives in archives: datasets come two deep, and an archive can be made that never ends.
_DEPTH = 4


def find_one(root: Path, name: str) -> Path:
    """Return the one file called ``name`` at or below ``root``.

    Raises:
        DataError: none or several.
    """
    found = sorted(path for path in root.rglob(name) if path.is_file() and "__MACOSX" not in path.parts)
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(str(path.parent) for path in found[:4])
        raise DataError(f"{root}: one {name} was expected, found {len(found)} (in {listed}); name one folder")
    raise DataError(f"{root}: {name} was expected in the raw files, found none")


@contextmanager
def open_source(source: Path, scratch: Path) -> Iterator[Path]:
    """Give the folder of raw files for as long as it is used; nothing is written into the source.

    An archive is unpacked into ``scratch``, every archive in it too: into a folder beside it, called as it
    without suffix. In a folder that holds archives the same is done with these, and ``scratch`` then has links to
    its other files. An archive whose files lie unpacked beside it is left alone. A folder without archives is
    used as it is.

    An archive inside the source that cannot be unpacked here (no program for rar, a password, a Git-LFS pointer)
    stays packed: that is printed, and added to the error if the conversion fails, since not every archive is part
    of the data.

    Args:
        source: folder, or zip, tar, rar or 7z archive, or one of its parts.
        scratch: folder to make; removed afterwards.

    Raises:
        DataError: no such source, or an archive that cannot be unpacked, is damaged or unsafe (see `plan`).
    """
    if not source.exists():
        raise DataError(f"{source}: a folder or an archive of raw files was expected, found nothing there")
    packed: list[str] = []
    try:
        if source.is_dir():
            raw = _open_folder(source, scratch, packed)
        else:
            raw = scratch
            unpack(source, scratch, packed)
        for reason in packed:
            print(f"  left packed: {reason}", file=sys.stderr)
        yield raw
    except DataError as error:
        if not packed:
            raise
        raise DataError(f"{error}; left packed: {'; '.join(packed)}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def unpack(path: Path, target: Path, packed: list[str] | None = None) -> None:
    """Unpack an archive and the archives in it.

    Args:
        path: the archive, or a part of it.
        target: folder to make.
        packed: gets a sentence for every archive in it that cannot be unpacked here.

    Raises:
        DataError: as `open_source`.
    """
    archive = archive_at(path)
    with open_archive(archive) as reader:
        _extract(archive, reader, plan(archive, reader, target), target)
    _unpack_inner(target, archive.name, 2, [] if packed is None else packed)


def _extract(archive: Archive, reader: Reader, places: Mapping[Path, int], target: Path) -> None:
    """Write the files of an archive.

    They get the time of the archive, so that a later run can tell that they are the same.
    """
    reader.extract(places, target)
    time = max(path.stat().st_mtime_ns for path in archive.files)
    for path in places:
        os.utime(path, ns=(time, time))


def _unpack_beside(archive: Archive, target: Path) -> bool:
    """Unpack an archive of a folder, unless its files lie there unpacked; whether it was.

    Args:
        archive: it; its files must not get in the way of those in ``archive.stem``, the folder beside it.
        target: folder to unpack into: ``archive.stem``, or its like in the scratch folder.

    Raises:
        StaysPackedError: as `open_archive`.
        DataError: as `open_archive` and `plan`, and for other files in the way.
    """
    with open_archive(archive) as reader:
        places = plan(archive, reader, target)
        sizes = {path.relative_to(target): reader.members[number].size for path, number in places.items()}
        if any(_all_there(folder, sizes) for folder in (archive.stem, archive.stem.parent)):
            return False
        in_the_way = [path for path in sizes if (archive.stem / path).exists() or (target / path).exists()]
        if in_the_way or archive.stem.is_file() or target.is_file():
            name = (in_the_way or [Path()])[0].as_posix()
            raise DataError(f"{archive.name}: its files would go to {archive.stem.name}/ beside it, which has others "
                            f"of the same names (first: {name}); take the archive or the others away")
        _extract(archive, reader, places, target)
    return True


def _all_there(folder: Path, sizes: Mapping[Path, int]) -> bool:
    """Whether a folder has all files, of the same sizes."""
    return all((folder / path).is_file() and (folder / path).stat().st_size == size for path, size in sizes.items())


def _unpack_inner(folder: Path, name: str, depth: int, packed: list[str]) -> None:
    """Unpack the archives in an unpacked folder, and those in them, and remove them.

    Args:
        folder: what was in an archive.
        name: that archive in messages.
        depth: how deep the archives lie, 1 for the source itself.
        packed: as in `unpack`.
    """
    archives = archives_among(sorted(_files(folder)), folder, name)
    if archives and depth > _DEPTH:
        raise DataError(f"{archives[0].name}: at most {_DEPTH} archives in one another were expected, found more; "
                        "unpack the source by hand")
    for archive in archives:
        try:
            if _unpack_beside(archive, archive.stem):
                _unpack_inner(archive.stem, archive.name, depth + 1, packed)
        except StaysPackedError as error:
            packed.append(str(error))
            continue
        for path in archive.files:
            path.unlink()


def _open_folder(source: Path, scratch: Path, packed: list[str]) -> Path:
    """Return the folder itself, or the scratch folder with its archives unpacked and links to its other files."""
    files = sorted(_files(source))
    unpacked: set[Path] = set()
    for archive in archives_among(files, source, str(source)):
        target = scratch / archive.stem.relative_to(source)
        try:
            if not _unpack_beside(archive, target):
                continue
        except StaysPackedError as error:
            packed.append(str(error))
            continue
        _unpack_inner(target, archive.name, 2, packed)
        unpacked.update(archive.files)
    if not unpacked:
        return source
    for path in files:
        if path not in unpacked:
            link = scratch / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            # Files one by one: searches do not go into folders that are links. Hard links need one file system.
            link.symlink_to(path.absolute())
    return scratch


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, and links to folders, which are not gone into."""
    for place, folders, files in os.walk(folder):
        # The output may lie in the source; the hidden work folders of conversions are not raw files.
        folders[:] = [name for name in folders if not (name.startswith(".") and name.endswith(".partial"))]
        yield from (Path(place, name) for name in files)
        yield from (Path(place, name) for name in folders if Path(place, name).is_symlink())
