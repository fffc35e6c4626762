"""Finding the downloads of the sets in a folder, by the names that their catalogue entries give."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from data_prep.archives.parts import archive_at, archives_among
from data_prep.records import DatasetInfo
from ultrasam.errors import DataError

# Downloads lie in the folder itself or, sorted by organ or the like, in a folder of it.
_DEPTH = 2


@dataclass(frozen=True)
class _Entry:
    """A folder or an archive, and the names by which patterns may call it."""

    path: Path
    names: tuple[str, ...]


def find_downloads(folder: Path, infos: Mapping[str, DatasetInfo]) -> dict[str, Path]:
    """Return the folder or archive of every set that is there.

    An entry belongs to the set whose pattern says most of its name; to several sets when these have that pattern in
    common, since some are published together. Folders that belong to no set are searched for entries too.

    Args:
        folder: the downloads.
        infos: catalogue entries of the sets to look for, by slug.

    Raises:
        DataError: no such folder, several entries for one set, or one entry for sets that do not share a pattern.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: a folder of downloads was expected, found "
                        f"{'a file' if folder.exists() else 'nothing there'}")
    found: dict[str, list[Path]] = defaultdict(list)
    for entry, slugs in _search(folder, infos, _DEPTH):
        for slug in slugs:
            found[slug].append(entry.path)
    several = {slug: paths for slug, paths in found.items() if len(paths) > 1}
    for slug, paths in sorted(several.items()):
        names = ", ".join(path.relative_to(folder).as_posix() for path in paths)
        raise DataError(f"{folder}: one download of {slug} was expected, found {len(paths)} ({names}); keep one, put "
                        f"what belongs together into one folder called {slug}, or pass --skip {slug}")
    return {slug: found[slug][0] for slug in sorted(found)}


def _search(folder: Path, infos: Mapping[str, DatasetInfo], depth: int) -> Iterable[tuple[_Entry, list[str]]]:
    """Yield the entries that belong to sets, with the slugs, in the order of their names."""
    for entry in _entries(folder, infos):
        slugs = _belongs_to(entry, infos)
        if slugs:
            yield entry, slugs
        elif entry.path.is_dir() and depth > 1:
            yield from _search(entry.path, infos, depth - 1)


def _entries(folder: Path, infos: Mapping[str, DatasetInfo]) -> list[_Entry]:
    """Return the folders of a folder, and its archives whose names a set has."""
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    named = [path for path in paths if path.is_file() and _matches((path.name.lower(),), infos)]
    archives = [_Entry(archive.files[0], (archive.files[0].name.lower(), archive.stem.name.lower()))
                for archive in archives_among(named, folder, str(folder))]
    return [_Entry(path, (path.name.lower(),)) for path in paths if path.is_dir()] + archives


def _matches(names: Sequence[str], infos: Mapping[str, DatasetInfo]) -> dict[str, set[str]]:
    """Return, by slug, the fixed parts of the patterns that fit one of the names."""
    found = {slug: {_fixed(pattern) for pattern in info.names
                    if any(fnmatchcase(name, pattern.lower()) for name in names)} for slug, info in infos.items()}
    return {slug: fixed for slug, fixed in found.items() if fixed}


def _fixed(pattern: str) -> str:
    """Return the characters of a pattern that stand for themselves."""
    return re.sub(r"\[.*?\]|[*?]", "", pattern.lower())


def _belongs_to(entry: _Entry, infos: Mapping[str, DatasetInfo]) -> list[str]:
    """Return the sets of an entry: those whose pattern says most."""
    found = _matches(entry.names, infos)
    most = max((len(text) for fixed in found.values() for text in fixed), default=0)
    best = {slug: {text for text in fixed if len(text) == most} for slug, fixed in found.items()}
    best = {slug: fixed for slug, fixed in best.items() if fixed}
    if len(best) > 1 and not set.intersection(*best.values()):
        raise DataError(f"{entry.path}: the download of one set was expected, but its name fits "
                        f"{', '.join(sorted(best))}; rename it to the slug of its set, or pass --skip for the others")
    return sorted(best)


def fingerprint(source: Path, info: DatasetInfo) -> str:
    """Return a checksum that changes when a download does, or what is made of it.

    It covers names, sizes and times of the files, but does not read them: some downloads have a hundred gigabytes.

    Args:
        source: folder or archive.
        info: catalogue entry, of which the rules and the categories count.
    """
    if source.is_dir():
        files = sorted(path for path in source.rglob("*") if path.is_file())
    else:
        files = list(archive_at(source).files)
    base = source if source.is_dir() else source.parent
    listing = [(path.relative_to(base).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    text = json.dumps([listing, asdict(info.rules), info.categories, info.test_folds], default=str)
    return hashlib.sha256(text.encode()).hexdigest()
