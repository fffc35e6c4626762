"""Folders of numbered images beside folders of numbered masks: the TN3K archive (tn3k, tg3k, ddti) and its like."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ultrasam.errors import DataError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}

# The README of the authors' repository links to one archive that holds all three sets.
ARCHIVE_ACCESS = ("TN3K.zip, linked from the README of the repository, holds the folders tn3k, tg3k and "
                  "DDTI dataset (with DDTI.zip inside)")


def find_pair(root: Path, *layouts: tuple[str, str]) -> tuple[Path, Path]:
    """Return the image folder and the folder of its annotations, by the first layout that is there.

    Args:
        root: folder of the raw files; the folders may lie at any depth.
        layouts: the end of the image folder's path, as ``"stage1/p_image"``, and the name of the folder that
            lies beside it. Upper and lower case are the same.

    Raises:
        DataError: none of the layouts, or one of them several times.
    """
    # The name of the root itself may be part of a layout: users give any of the nested folders.
    above = root.resolve().parts
    folders = {path: tuple(part.lower() for part in (*above, *path.relative_to(root).parts))
               for path in (root, *root.rglob("*")) if path.is_dir() and "__MACOSX" not in path.parts}
    for tail, beside in layouts:
        wanted = tuple(tail.lower().split("/"))
        found = sorted((path, other) for path, parts in folders.items() if parts[-len(wanted):] == wanted
                       for other in folders
                       if other.parent == path.parent and other.name.lower() == beside.lower())
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(str(path) for path, _ in found[:4])
            raise DataError(f"{root}: one folder {tail} with {beside} beside it was expected, found {len(found)} "
                            f"({listed}); name one of the downloads")
    known = " or ".join(f"{tail} with {beside} beside it" for tail, beside in layouts)
    raise DataError(f"{root}: the folder {known} was expected in the raw files, found none; "
                    "give the folder of the unpacked download or its archive")


def numbered(folder: Path) -> dict[int, Path]:
    """Return the image files of a folder by the number that their names begin with, in numerical order.

    Raises:
        DataError: a name without a number, or two files of one number.
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        # Names with a leading dot are notes that macOS keeps of a file.
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        first = path.stem.split()[0]
        if not (first.isascii() and first.isdigit()):
            raise DataError(f"{path}: a file name that begins with a number was expected; "
                            "check that this folder is the original one")
        number = int(first)
        if number in found:
            raise DataError(f"{path}: one file with the number {number} was expected, found also "
                            f"{found[number].name}; remove the one that is not original")
        found[number] = path
    return dict(sorted(found.items()))


def paired(images: Path, masks: Path) -> Iterator[tuple[int, Path, Path]]:
    """Yield number, image file and mask file of every number that has one of them, in numerical order.

    Where a number has only one of them, the other is a path at which there is nothing, so that the conversion
    names it as missing.
    """
    pictures, drawings = numbered(images), numbered(masks)
    for number in sorted({*pictures, *drawings}):
        image = pictures[number] if number in pictures else images / drawings[number].name
        mask = drawings[number] if number in drawings else masks / pictures[number].name
        yield number, image, mask
