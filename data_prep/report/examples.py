"""Which images of a set are shown: always the same ones, and together as many categories as possible."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from data_prep.report.annotations import ImageEntry


class Candidate(NamedTuple):
    """An image with objects, its side and the names of the categories that it shows."""

    split: str
    image: ImageEntry
    categories: tuple[str, ...]


def choose(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """Return ``count`` images, or all when there are fewer.

    The order is that of a hash of the file name, so that neighbours in a video are not shown one after the
    other. First come images that add a category not shown yet, then those of groups not shown yet, then others.
    """
    ranked = sorted(candidates, key=lambda item: hashlib.sha256(item.image.file_name.encode()).digest())
    chosen: list[Candidate] = []
    categories: set[str] = set()
    groups: set[str] = set()
    for wanted in ("category", "group", "any"):
        for item in ranked:
            if len(chosen) >= count:
                return chosen
            new = {"category": not categories.issuperset(item.categories),
                   "group": not item.image.group or item.image.group not in groups, "any": True}[wanted]
            if new and item not in chosen:
                chosen.append(item)
                categories.update(item.categories)
                groups.add(item.image.group)
    return chosen
