"""Training without an application, or with a part of it: which images each of these files leaves out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_prep.collection.sides import Joined, Picture, rank
from ultrasam.datasets.coco_applications import FAMILIES

PERCENTAGES = (0, 10, 30, 50, 100)


def family_of(description: str) -> str | None:
    """Return the family that a set's application and organ, in words, belong to."""
    words = re.findall(r"[a-z]+", description.lower())
    return next((family for family, stems in FAMILIES.items() if any(word.startswith(stems) for word in words)), None)


def kept_images(
    pictures: Sequence[Picture], sides: Sequence[str], joined: Joined, inside: NDArray[np.bool_], family: str
) -> dict[int, NDArray[np.bool_]]:
    """Return which training images stay when a percentage of a family's images does.

    Whole joined groups stay or go, by hash rank: a group stays when the percentage is not exceeded with it, and the
    smallest one when none could. So 10 % are in 30 %, and 30 % in 50 %. Images of other sets that are near duplicates
    of the family's images go with these: they show the same.

    Args:
        pictures: N images.
        sides: of each.
        joined: their groups.
        inside: bool (N,), images of the family's sets.
        family: its name, which the rank depends on.

    Returns:
        bool (N,) by percentage; nothing but training images is marked.
    """
    train = np.array([side == "train" for side in sides], dtype=bool)
    sizes = Counter(joined.labels[train & inside].tolist())
    order = sorted(sizes, key=lambda label: rank(family, joined.names[label]))
    total = sum(sizes.values())
    concerned = np.isin(joined.labels, order)
    chosen: set[int] = set()
    result = {}
    for percentage in PERCENTAGES:
        taken = sum(sizes[label] for label in chosen)
        for label in order:
            if label not in chosen and 100 * (taken + sizes[label]) <= percentage * total:
                chosen.add(label)
                taken += sizes[label]
        if percentage and order and not chosen:
            chosen.add(min(order, key=lambda label: sizes[label]))
        result[percentage] = train & (~concerned | np.isin(joined.labels, sorted(chosen)))
    return result
