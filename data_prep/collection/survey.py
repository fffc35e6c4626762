"""What is known of all images before anything is written: their near duplicates, their sides, and who gets them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.collection.families import FAMILIES, family_of, kept_images
from data_prep.collection.near_duplicates import Candidates, find_candidates
from data_prep.collection.pictures import read_thumbnails, same_picture
from data_prep.collection.publish import digest
from data_prep.collection.sets import ConvertedSet, read_set
from data_prep.collection.sides import Joined, Picture, Validation, check_sides, decide_sides, join_groups
from data_prep.records import DatasetInfo
from data_prep.splits import SPLITS
from ultrasam.errors import DataError

Marks = NDArray[np.bool_]


@dataclass(frozen=True)
class Surveyed:
    """The images of some sets, in the order in which they are written.

    Attributes:
        slugs: the sets.
        pictures: their images, set by set.
        families: family of each set, where it has one.
        validation: choices of each set.
        manifests: SHA-256 of the manifest of each set.
    """

    slugs: list[str]
    pictures: list[Picture]
    families: dict[str, str]
    validation: dict[str, Validation]
    manifests: dict[str, str]


@dataclass(frozen=True)
class NearDuplicates:
    """Images that show the same.

    Attributes:
        pairs: int64 (M, 2), positions of the images.
        searched: how they were found.
        confirmed: whether the images were opened and compared, or the hashes believed.
    """

    pairs: NDArray[np.int64]
    searched: Candidates
    confirmed: bool


@dataclass(frozen=True)
class Decisions:
    """Where every image goes.

    Attributes:
        sides: side of each image.
        joined: groups united.
        files: bool (N,) by name of a merged file, the images that it holds; no file is empty.
        copies: merged files that have the content of another, by name.
    """

    sides: list[str]
    joined: Joined
    files: dict[str, Marks]
    copies: dict[str, str]


def survey(root: Path, slugs: Sequence[str], infos: Mapping[str, DatasetInfo]) -> Surveyed:
    """Read the sets, one at a time, and keep what deciding needs.

    Raises:
        DataError: a set is damaged.
    """
    found = Surveyed(sorted(slugs), [], {}, {}, {})
    for slug in found.slugs:
        found.manifests[slug] = digest(root / slug / "manifest.json")
        content = read_set(root, slug)
        application = application_of(content, infos.get(slug))
        found.validation[slug] = _validation(content)
        organ = infos[slug].organ if slug in infos else ""
        family = family_of(f"{application} {organ}")
        if family is not None:
            found.families[slug] = family
        found.pictures.extend(_picture(image, items, slug, application)
                              for image, items in zip(content.images, content.objects, strict=True))
    return found


def application_of(content: ConvertedSet, info: DatasetInfo | None) -> str:
    """Return the application of a set: of the catalogue, else of its image records."""
    return info.application if info is not None else str(content.images[0].get("application") or "other")


def _validation(content: ConvertedSet) -> Validation:
    """Return what the set's conversion chose for validation, which the collection keeps to."""
    choices = content.manifest.get("choices") or {}
    return Validation(choices.get("validation_fraction", Validation.fraction), choices.get("seed", Validation.seed))


def _picture(image: dict[str, Any], objects: Sequence[object], slug: str, application: str) -> Picture:
    phash = image["phash"]
    if not isinstance(phash, str) or not re.fullmatch("[0-9a-f]{16}", phash):
        raise DataError(f"{image['file_name']}: a phash of 16 hexadecimal digits was expected, found {phash!r}; "
                        f"convert {slug} again (--reconvert)")
    return Picture(slug, str(image["file_name"]), str(image["group"]), int(phash, 16), image["split"] == "test",
                   application, len(objects))


def near_duplicates(root: Path, pictures: Sequence[Picture], *, confirm: bool, workers: int) -> NearDuplicates:
    """Find the images of different groups that show the same.

    Args:
        root: folder that file names are relative to.
        pictures: the images.
        confirm: open the candidates and compare them; else every near hash counts.
        workers: threads that open images.

    Raises:
        DataError: an image is missing or damaged.
    """
    numbers = {group: number for number, group in enumerate(sorted({picture.group for picture in pictures}))}
    hashes = np.array([picture.phash for picture in pictures], dtype=np.uint64)
    groups = np.array([numbers[picture.group] for picture in pictures], dtype=np.int64)
    searched = find_candidates(hashes, groups)
    pairs = searched.pairs
    if confirm and len(pairs):
        opened, places = np.unique(pairs, return_inverse=True)
        thumbnails = read_thumbnails([root / pictures[number].file_name for number in opened.tolist()], workers)
        pairs = pairs[same_picture(thumbnails, places.reshape(-1, 2))]
    return NearDuplicates(pairs, searched, confirm)


def decide(found: Surveyed, near: NearDuplicates) -> Decisions:
    """Decide the side of every image and which merged files hold it.

    Raises:
        DataError: an image, a group or a near duplicate would be on two sides.
    """
    pictures = found.pictures
    joined = join_groups(pictures, near.pairs)
    sides = decide_sides(pictures, joined, found.validation)
    check_sides(pictures, sides, near.pairs)
    files: dict[str, Marks] = {}
    copies: dict[str, str] = {}
    first: dict[bytes, str] = {}
    for name, marks in _merged_files(found, sides, joined).items():
        # A family's 0 and 100 % for instance are files that are there already.
        same = first.setdefault(marks.tobytes(), name)
        if same != name:
            copies[name] = same
        elif marks.any():
            files[name] = marks
    return Decisions(sides, joined, files, {name: same for name, same in copies.items() if same in files})


def _merged_files(found: Surveyed, sides: Sequence[str], joined: Joined) -> dict[str, Marks]:
    """Return the merged files by name, each with the images that it holds, bool (N,)."""
    files = {f"{split}.agnostic.json": np.array([side == split for side in sides], dtype=bool) for split in SPLITS}
    val = files["val.agnostic.json"]
    for family in FAMILIES:
        inside = np.array([found.families.get(picture.dataset) == family for picture in found.pictures], dtype=bool)
        files[f"val.without_{family}.json"] = val & ~np.isin(joined.labels, joined.labels[val & inside])
        kept = kept_images(found.pictures, sides, joined, inside, family)
        files[f"train.without_{family}.json"] = kept[0]
        files |= {f"train.{family}_{percentage:02d}.json": marks for percentage, marks in kept.items()}
    return files
