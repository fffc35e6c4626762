"""What a training saw: data sets, applications, images and masks, and what was left out on purpose."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ultrasam.datasets.coco_applications import FAMILIES
from ultrasam.datasets.coco_types import CocoImage
from ultrasam.datasets.nesting import leaves, source_name
from ultrasam.errors import ConfigError, DataError

MANIFEST = "manifest.json"


@dataclass
class Exclusion:
    """Images that a training leaves out.

    Attributes:
        words: what was asked for.
        sets: data set to the number of its images left out because the set or its application was named.
        duplicates: data set to the number of its images left out because they show the same as one of those.
    """

    words: tuple[str, ...]
    sets: dict[str, int] = field(default_factory=dict)
    duplicates: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{name} ({count:,} images)" for name, count in sorted(self.sets.items())]
        text = f"Left out because of {', '.join(self.words)}: {', '.join(parts) or 'no set'}"
        if self.duplicates:
            others = [f"{name} ({count:,})" for name, count in sorted(self.duplicates.items())]
            text += f"; near duplicates of theirs in {', '.join(others)}"
        return text

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint's card."""
        return {"words": list(self.words), "sets": self.sets, "near_duplicates": self.duplicates}


def is_named(image: CocoImage, words: Sequence[str]) -> bool:
    """Whether one of the words is the image's data set, or begins a word of its application."""
    application = re.findall(r"[a-z0-9]+", str(image.extra.get("application") or "").lower())
    for word in words:
        word = word.lower()
        stems = FAMILIES.get(word, (word,))
        if word == image.dataset.lower() or any(part.startswith(stems) for part in application):
            return True
    return False


def exclude(
    images: Sequence[CocoImage], words: Sequence[str], joined: Sequence[Sequence[str]] = ()
) -> tuple[list[CocoImage], Exclusion]:
    """Leave out the images of named data sets and applications, and near duplicates of theirs elsewhere.

    Args:
        images: N images.
        words: slugs of data sets, or applications by name or beginning: "bus_bra", "breast", "fetal".
        joined: groups that hold near duplicates of each other, see ``joined_groups``.

    Returns:
        the images that stay, in their order, and what was left out.
    """
    named = [is_named(image, words) for image in images]
    groups = {image.group for image, gone in zip(images, named, strict=True) if gone}
    related = {group for family in joined if groups & set(family) for group in family} - groups
    found = Exclusion(tuple(words))
    kept = []
    for image, gone in zip(images, named, strict=True):
        if gone:
            found.sets[image.dataset] = found.sets.get(image.dataset, 0) + 1
        elif image.group in related:
            found.duplicates[image.dataset] = found.duplicates.get(image.dataset, 0) + 1
        else:
            kept.append(image)
    return kept, found


def joined_groups(root: Path) -> list[list[str]]:
    """Return the groups with near duplicates of each other that the collection's manifest names; none without one.

    Raises:
        DataError: the manifest cannot be read.
    """
    path = root / MANIFEST
    if not path.is_file():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        groups = (content.get("near_duplicates") or {}).get("joined_groups") or []
        return [[str(name) for name in family] for family in groups]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path} is no manifest of a collection ({error}); run python -m data_prep prepare") from error


def check_words(words: Sequence[str], images: Sequence[CocoImage], source: str) -> None:
    """Refuse a word that names nothing, which would leave an exclusion undone without a word.

    Raises:
        ConfigError: no image is of such a data set or application.
    """
    for word in words:
        if not any(is_named(image, [word]) for image in images):
            known = sorted({str(image.extra.get("application") or "") for image in images} - {""})
            sets = sorted({image.dataset for image in images})
            raise ConfigError(
                f"exclude names {word!r}, but {source} has no such data set or application; applications are "
                f"{', '.join(known) or 'not named'}, data sets {', '.join(sets)}"
            )


def composition_of(dataset: Any) -> dict[str, Any]:
    """Describe a training dataset, wrapped, repeated or concatenated, for a checkpoint's card.

    Returns:
        ``images`` and ``masks``, ``sets`` (each with application, images, masks), ``applications`` (each with images
        and masks), and ``exclusions`` where there are any. Images count once, however often they are repeated.
    """
    sets: dict[str, dict[str, Any]] = {}
    exclusions: list[dict[str, Any]] = []
    for leaf in leaves(dataset):
        if hasattr(leaf, "images"):
            for image in leaf.images:
                application = str(image.extra.get("application") or "")
                _count(sets, image.dataset, application, 1, len(image.objects))
        else:
            _count(sets, source_name(leaf), "", len(leaf), 0)
        excluded = getattr(leaf, "excluded", None)
        if excluded is not None and excluded.to_dict() not in exclusions:
            exclusions.append(excluded.to_dict())
    applications: dict[str, dict[str, int]] = {}
    for entry in sets.values():
        total = applications.setdefault(entry["application"] or "not named", {"images": 0, "masks": 0})
        total["images"] += entry["images"]
        total["masks"] += entry["masks"]
    found: dict[str, Any] = {
        "images": sum(entry["images"] for entry in sets.values()),
        "masks": sum(entry["masks"] for entry in sets.values()),
        "sets": dict(sorted(sets.items())),
        "applications": dict(sorted(applications.items())),
    }
    return {**found, "exclusions": exclusions} if exclusions else found


def _count(sets: dict[str, dict[str, Any]], name: str, application: str, images: int, masks: int) -> None:
    entry = sets.setdefault(name, {"application": application, "images": 0, "masks": 0})
    entry["images"] += images
    entry["masks"] += masks
