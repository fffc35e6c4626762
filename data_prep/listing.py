"""Finding raw files and folders by their names, at any depth of a download, and pairing images with masks.

Hidden files and folders, and what macOS adds to its archives (``__MACOSX``), are passed over by all of these.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from data_prep.sources import find_one
from ultrasam.errors import DataError
from ultrasam.io.volumes import suffix_of

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

Key = TypeVar("Key", bound="str | int")


def _passed_over(name: str) -> bool:
    """Whether no file or folder of this name is ever raw data."""
    return name.startswith(".") or name == "__MACOSX"


def files_below(root: Path, pattern: str) -> list[Path]:
    """Return the files at or below ``root`` that a pattern (`Path.rglob`) names, sorted; there may be none."""
    return sorted(path for path in root.rglob(pattern)
                  if path.is_file() and not any(map(_passed_over, path.relative_to(root).parts)))


def find_files(root: Path, pattern: str) -> list[Path]:
    """Return the files at or below ``root`` that a pattern (`Path.rglob`) names, sorted; DataError for none."""
    found = files_below(root, pattern)
    if not found:
        raise DataError(f"{root}: files named {pattern} were expected, found none; check the source and unpack "
                        "every archive in it")
    return found


def find_optional(root: Path, name: str) -> Path | None:
    """Return the one file called ``name`` at or below ``root``, None where there is none; DataError for several."""
    return find_one(root, name) if files_below(root, name) else None


def match_files(root: Path, pattern: str, example: str) -> dict[tuple[str, ...], Path]:
    """Return the files at or below ``root`` whose path ends in a pattern, by the pattern's groups in lower case.

    Args:
        root: folder of the raw files.
        pattern: regular expression for the end of the path, with forward slashes; case does not matter.
        example: a path of this kind, for the message when there is none.

    Raises:
        DataError: none, or two files with the same groups.
    """
    expression = re.compile(f"(?:.*/)?{pattern}", re.IGNORECASE)
    found: dict[tuple[str, ...], Path] = {}
    for path in files_below(root, "*"):
        name = path.relative_to(root).as_posix()
        match = expression.fullmatch(name)
        if match is None:
            continue
        key = tuple(group.lower() for group in match.groups())
        if key in found:
            raise DataError(f"{root}: one file of each name was expected, found {found[key].relative_to(root)} and "
                            f"{name}; give the folder of one copy")
        found[key] = path
    if not found:
        raise DataError(f"{root}: files like {example} were expected, found none; check the source")
    return found


def find_folders(root: Path, *tails: str) -> list[Path]:
    """Return the folders at or below ``root`` whose path ends in one of some tails, sorted; there may be none.

    Args:
        root: folder of the raw files. Its own name may be part of a tail: users give any of the nested folders.
        tails: as ``"stage1/p_image"``; upper and lower case are the same.
    """
    wanted = [tuple(tail.lower().split("/")) for tail in tails]
    above = [part.lower() for part in root.resolve().parts]
    found = []
    for place, names, _ in os.walk(root):
        names[:] = [name for name in names if not _passed_over(name)]
        folder = Path(place)
        parts = (*above, *(part.lower() for part in folder.relative_to(root).parts))
        if any(parts[-len(tail):] == tail for tail in wanted):
            found.append(folder)
    return sorted(found)


def find_pair(root: Path, *layouts: tuple[str, str]) -> tuple[Path, Path]:
    """Return the image folder and the folder of its annotations, by the first layout that is there.

    Args:
        root: folder of the raw files; the folders may lie at any depth.
        layouts: the end of the image folder's path, as ``"stage1/p_image"``, and the name of the folder that
            lies beside it. Upper and lower case are the same.

    Raises:
        DataError: none of the layouts, or one of them several times.
    """
    for tail, beside in layouts:
        images = [folder for folder in find_folders(root, tail) if folder != root]
        found = [(folder, other) for folder in images for other in sorted(folder.parent.iterdir())
                 if other.name.lower() == beside.lower() and other.is_dir()]
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(str(path) for path, _ in found[:4])
            raise DataError(f"{root}: one folder {tail} with {beside} beside it was expected, found {len(found)} "
                            f"({listed}); name one of the downloads")
    known = " or ".join(f"{tail} with {beside} beside it" for tail, beside in layouts)
    raise DataError(f"{root}: the folder {known} was expected in the raw files, found none; "
                    "give the folder of the unpacked download or its archive")


def folder_above(path: Path, root: Path) -> Path:
    """Return the folder that holds the file's folder and those beside it.

    Raises:
        DataError: it is not inside the source.
    """
    if path.parent == root:
        raise DataError(f"{root}: the folder above was expected as the source, since labels and images lie in "
                        "folders beside each other")
    return path.parents[1]


def by_stem(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Return the files of a folder by name without suffix, in the order of their names.

    Args:
        folder: it; none is found in one that is not there.
        suffixes: of the files wanted, in lower case (their own case does not matter); ``.nii.gz`` is one.

    Raises:
        DataError: two files of one name.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        suffix = suffix_of(path)
        if suffix not in suffixes or path.name.startswith("."):
            continue
        stem = path.name[:-len(suffix)]
        if stem in found:
            raise DataError(f"{path}: one file {stem} was expected, found also {found[stem].name}; remove one of them")
        found[stem] = path
    return found


def numbered(folder: Path) -> dict[int, Path]:
    """Return the image files of a folder by the number that their names begin with, in numerical order.

    Raises:
        DataError: a name without a number, or two files of one number.
    """
    found: dict[int, Path] = {}
    for stem, path in by_stem(folder).items():
        first = stem.split()[0]
        if not (first.isascii() and first.isdigit()):
            raise DataError(f"{path}: a file name that begins with a number was expected; "
                            "check that this folder is the original one")
        number = int(first)
        if number in found:
            raise DataError(f"{path}: one file with the number {number} was expected, found also "
                            f"{found[number].name}; remove the one that is not original")
        found[number] = path
    return dict(sorted(found.items()))


def paired(
    images: Path, masks: Path, listed: Callable[[Path], dict[Key, Path]]
) -> Iterator[tuple[Key, Path, Path]]:
    """Yield key, image file and mask file of every key that has one of them, in the order of the keys.

    Where a key has only one of them, the other is a path at which there is nothing, so that the conversion names
    it as missing.

    Args:
        images: folder of the images.
        masks: folder of the masks.
        listed: `by_stem` or `numbered`.
    """
    pictures, drawings = listed(images), listed(masks)
    for key in sorted({*pictures, *drawings}):
        image = pictures[key] if key in pictures else images / drawings[key].name
        mask = drawings[key] if key in drawings else masks / pictures[key].name
        yield key, image, mask
