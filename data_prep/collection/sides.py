"""Which side each image of the collection is on, decided for groups that show the same together."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from data_prep.collection.sets import EXCLUDED
from ultrasam.errors import DataError


@dataclass(frozen=True)
class Picture:
    """What deciding needs of an image.

    Attributes:
        dataset: slug of its set.
        file_name: relative to the root; unique.
        group: patient, video or volume, ``<slug>/<name>``.
        phash: perceptual hash.
        test: whether it is on the official test side.
        application: of its set, in words.
        masks: number of objects.
    """

    dataset: str
    file_name: str
    group: str
    phash: int
    test: bool
    application: str = ""
    masks: int = 0


@dataclass(frozen=True)
class Validation:
    """How much of a set is for validation, and the seed of the choice."""

    fraction: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class Joined:
    """Groups united because they hold near duplicates of each other.

    Attributes:
        labels: int64 (N,), number of the joined group of each image, from 0.
        names: name of each joined group: the first of the names of its groups.
        groups: the groups of each joined group, sorted.
    """

    labels: NDArray[np.int64]
    names: list[str]
    groups: list[list[str]]


def join_groups(pictures: Sequence[Picture], pairs: NDArray[np.int64]) -> Joined:
    """Unite the groups of images that are near duplicates.

    Args:
        pictures: N images.
        pairs: int64 (M, 2), positions of near duplicates.
    """
    groups = sorted({picture.group for picture in pictures})
    number = {group: position for position, group in enumerate(groups)}
    owner = np.array([number[picture.group] for picture in pictures], dtype=np.int64)
    edges = coo_matrix((np.ones(len(pairs), bool), (owner[pairs[:, 0]], owner[pairs[:, 1]])),
                       shape=(len(groups), len(groups)))
    _, component = connected_components(edges, directed=False)
    members: dict[int, list[str]] = defaultdict(list)
    for group, label in zip(groups, component.tolist(), strict=True):
        members[label].append(group)
    # Numbered by their first group, whatever numbers the search gave.
    order = {label: position for position, label in enumerate(members)}
    labels = np.array([order[label] for label in component.tolist()], dtype=np.int64)[owner]
    return Joined(labels, [names[0] for names in members.values()], list(members.values()))


def decide_sides(
    pictures: Sequence[Picture], joined: Joined, validation: Mapping[str, Validation]
) -> list[str]:
    """Return ``"train"``, ``"val"``, ``"test"`` or ``"excluded"`` for every image.

    Official test images stay. Other images of a joined group that touches the test side are excluded. Of the rest,
    joined groups are taken for validation per set as `data_prep.splits` does, so that a set without near
    duplicates keeps the sides of its conversion: by hash rank until the fraction is reached, and never the last
    one of a set.

    Args:
        pictures: N images.
        joined: their groups.
        validation: choices by slug; the default where a set has none.
    """
    touched = {label for label, picture in zip(joined.labels.tolist(), pictures, strict=True) if picture.test}
    sizes: dict[str, Counter[int]] = defaultdict(Counter)
    for label, picture in zip(joined.labels.tolist(), pictures, strict=True):
        if label not in touched:
            sizes[picture.dataset][label] += 1
    chosen = _validation_groups(sizes, joined, validation)
    return ["test" if picture.test else EXCLUDED if label in touched else "val" if label in chosen else "train"
            for label, picture in zip(joined.labels.tolist(), pictures, strict=True)]


def _validation_groups(
    sizes: Mapping[str, Counter[int]], joined: Joined, validation: Mapping[str, Validation]
) -> set[int]:
    """Return the joined groups for validation, given the images of each per set."""
    holders: dict[int, list[str]] = defaultdict(list)
    for slug, groups in sizes.items():
        for label in groups:
            holders[label].append(slug)
    left = {slug: len(groups) for slug, groups in sizes.items()}
    chosen: set[int] = set()
    for slug in sorted(sizes):
        groups, choice = sizes[slug], validation.get(slug, Validation())
        wanted = choice.fraction * sum(groups.values())
        taken = sum(count for label, count in groups.items() if label in chosen)
        for label in sorted(groups, key=lambda number: rank(choice.seed, joined.names[number])):
            if taken >= wanted:
                break
            if label in chosen or any(left[holder] <= 1 for holder in holders[label]):
                continue
            chosen.add(label)
            taken += groups[label]
            for holder in holders[label]:
                left[holder] -= 1
    return chosen


def rank(seed: int | str, name: str) -> bytes:
    """Return a value that orders names in a way that looks random and never changes (as in `data_prep.splits`)."""
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def check_sides(pictures: Sequence[Picture], sides: Sequence[str], pairs: NDArray[np.int64]) -> None:
    """Refuse sides that share an image, a group or a near duplicate.

    Args:
        pictures: N images.
        sides: of each.
        pairs: int64 (M, 2), positions of near duplicates.

    Raises:
        DataError: they share one.
    """
    for what, names in (("images", [picture.file_name for picture in pictures]),
                        ("groups", [picture.group for picture in pictures])):
        found: dict[str, set[str]] = defaultdict(set)
        for name, side in zip(names, sides, strict=True):
            if side != EXCLUDED:
                found[name].add(side)
        torn = sorted(name for name, where in found.items() if len(where) > 1)
        if torn:
            raise DataError(f"{len(torn)} {what} are on two sides of the split (first: {torn[:5]}); each must be on "
                            "one side only, convert their sets again")
    for one, two in pairs.tolist():
        if sides[one] != sides[two] and EXCLUDED not in (sides[one], sides[two]):
            raise DataError(f"{pictures[one].file_name} ({sides[one]}) and {pictures[two].file_name} ({sides[two]}) "
                            "show the same picture on two sides of the split; please report this")
