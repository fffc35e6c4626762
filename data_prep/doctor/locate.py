"""Finding the image files that a COCO file names."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif"))
# Of the names, so many are tried in every candidate for the root.
_TRIED = 200


def is_file(path: Path) -> bool:
    """Whether the path is a file; names that no file system accepts are none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def guess_root(source: Path, names: Sequence[str]) -> Path:
    """Return the folder near an annotation file in which most of the named images are."""
    folder = source.parent
    parents = [folder, folder.parent, folder.parent.parent]
    candidates = [place for parent in parents for place in (parent, parent / "images")]
    tried = names[:_TRIED]
    found = [sum(is_file(place / name) for name in tried) for place in candidates]
    return candidates[found.index(max(found))]


def is_absolute(name: str) -> bool:
    """Whether a file name holds on one machine only."""
    return PurePosixPath(name).is_absolute() or bool(PureWindowsPath(name).drive)


class Finder:
    """Looks for images below a root; the folder is listed once, when a name is not where it should be.

    Args:
        root: folder that relative file names start from.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[str, list[Path]] | None = None

    def find(self, name: str) -> tuple[Path | None, str]:
        """Return the file of a name and, where it is not exactly there, how it was found or why not."""
        if is_file(self._root / name):
            return Path(os.path.normpath(self._root / name)), ""
        parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", ".", "..")]
        # Doubled folders, and paths of another machine: the end of the path is what holds.
        for start in range(len(parts)):
            path = self._root.joinpath(*parts[start:])
            if is_file(path):
                return path, "found by the end of its path"
        last = parts[-1] if parts else name
        for wanted, how in ((last.lower(), "found by its name in another folder or case"),
                            (PurePosixPath(last).stem.lower() + ".*", "found with another suffix")):
            found = self._listed().get(wanted, [])
            if len(found) == 1:
                return found[0], how
            if found:
                return None, "set aside: several files have this name"
        return None, "set aside: no such file"

    def _listed(self) -> dict[str, list[Path]]:
        """Return every file below the root by its lower-case name, and by its stem with '.*'."""
        if self._names is None:
            names: dict[str, list[Path]] = defaultdict(list)
            for folder, _, files in os.walk(self._root):
                for file in files:
                    path = Path(folder, file)
                    names[file.lower()].append(path)
                    if path.suffix.lower() in IMAGE_SUFFIXES:
                        names[path.stem.lower() + ".*"].append(path)
            self._names = dict(names)
        return self._names
