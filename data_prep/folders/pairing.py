"""Which mask files belong to which image file."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ultrasam.errors import ConfigError, DataError

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"))
# Endings of mask names that are tried when none is stated.
ENDINGS = ("", "_mask", "_segmentation", "_seg", "_label", "_labels", "_gt", "_annotation", "-mask", "_Annotation",
           " mask", "_mask_image")


@dataclass(frozen=True)
class Pair:
    """An image and its masks.

    Attributes:
        stem: path of the image below its folder without suffix, with forward slashes.
        image: the file.
        masks: its mask files: the one of the image's name, then those numbered ``_1``, ``_2``, ...
    """

    stem: str
    image: Path
    masks: tuple[Path, ...]


@dataclass(frozen=True)
class Pairing:
    """The files of two folders.

    Attributes:
        pairs: sorted by stem.
        without_mask: images that no mask belongs to.
        without_image: masks that belong to no image.
        ambiguous: stem to all files, where several images or several masks have one name.
    """

    pairs: list[Pair]
    without_mask: list[Path]
    without_image: list[Path]
    ambiguous: dict[str, list[Path]]


def list_images(folder: Path, without: Path | None = None) -> list[Path]:
    """Return the image files at or below a folder, sorted; what macOS adds to archives is no image.

    Args:
        folder: where to look.
        without: a folder in it whose files do not count.

    Raises:
        DataError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        found_there = "a file" if folder.exists() else "nothing"
        raise DataError(f"{folder}: a folder of images was expected, found {found_there}")
    inside = without is not None and folder in without.parents
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES
                   and not path.name.startswith("._") and "__MACOSX" not in path.parts
                   and not (inside and without in path.parents))
    if not found:
        kinds = sorted({path.suffix for path in folder.rglob("*") if path.is_file()})
        raise DataError(f"{folder}: image files ({', '.join(sorted(IMAGE_SUFFIXES))}) were expected, found "
                        f"{'files of the kinds ' + str(kinds[:8]) if kinds else 'no file'}")
    return found


def pair_files(images: Path, masks: Path, suffix: str = "") -> Pairing:
    """Pair images and masks by their path below the two folders.

    Args:
        images: folder of images.
        masks: folder of masks; it may be the same, or lie inside the other.
        suffix: what mask names have after the name of their image. With one, further masks of an image may be
            numbered: ``a_mask.png``, ``a_mask_1.png``.

    Raises:
        DataError: a folder is missing or holds no image.
        ConfigError: one folder for both, without a suffix that tells them apart.
    """
    if images.resolve() == masks.resolve() and not suffix:
        raise ConfigError(f"{images}: images and masks are in one folder, so a suffix of the mask names was expected "
                          "(--suffix _mask), found none")
    images, masks = images.resolve(), masks.resolve()
    same = images == masks
    owners = _masks_by_owner(masks, list_images(masks, None if same else images), suffix, same)
    mask_files = {path for found in owners.values() for _, path in found}
    image_files: dict[str, list[Path]] = defaultdict(list)
    for path in list_images(images, None if same else masks):
        if path not in mask_files:
            image_files[_stem(path, images)].append(path)
    ambiguous = {stem: files for stem, files in image_files.items() if len(files) > 1}
    for stem, found in owners.items():
        numbers = [number for number, _ in found]
        if len(set(numbers)) < len(numbers):
            ambiguous[stem] = [*ambiguous.get(stem, []), *(path for _, path in found)]
    pairs = [Pair(stem, files[0], tuple(path for _, path in sorted(owners[stem])))
             for stem, files in sorted(image_files.items()) if stem in owners and stem not in ambiguous]
    return Pairing(
        pairs,
        [files[0] for stem, files in sorted(image_files.items()) if stem not in owners and stem not in ambiguous],
        [path for stem, found in sorted(owners.items()) for _, path in found
         if stem not in image_files and stem not in ambiguous],
        dict(sorted(ambiguous.items())),
    )


def best_suffix(images: Path, masks: Path, endings: Sequence[str] = ENDINGS) -> str:
    """Return the ending of mask names that makes the most pairs, the plain name where none makes any."""
    same = images.resolve() == masks.resolve()
    tried = [ending for ending in endings if ending or not same]
    counts = [len(pair_files(images, masks, ending).pairs) for ending in tried]
    return tried[counts.index(max(counts))]


def _masks_by_owner(
    folder: Path, files: Sequence[Path], suffix: str, same: bool
) -> dict[str, list[tuple[int, Path]]]:
    """Return (number, mask file) by the stem of the image; the mask without a number comes first as number 0.

    In a folder of its own (not ``same``) every other file is a mask too, of an image that there is not.
    """
    pattern = re.compile(f"(.+){re.escape(suffix)}(?:_([1-9][0-9]{{0,5}}))?") if suffix else re.compile("(.+)()")
    owners: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for path in files:
        stem = _stem(path, folder)
        match = pattern.fullmatch(stem)
        if match:
            owners[match[1]].append((int(match[2] or 0), path))
        elif not same:
            owners[stem].append((0, path))
    return dict(owners)


def _stem(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()
