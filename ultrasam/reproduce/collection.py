"""What a prepared collection holds, by set and application, beside the paper's Table 1."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ultrasam.datasets.composition import MANIFEST
from ultrasam.errors import DataError
from ultrasam.io.files import read_bytes
from ultrasam.reproduce.paper import paper_tables

SPLITS = ("train", "val", "test")
NO_APPLICATION = "not named"
# Our names of the sets of the paper's Table 1. MUP and MicroSeg are one set that was published twice.
TABLE1 = {
    "abdomen_us": "AbdomenUS", "acouslic": "ACOUSLIC", "asus": "ASUS", "aul": "AUL",
    "brachial_plexus": "Brachial Plexus", "breast_lesions_usg": "BrEaST", "buid": "BUID", "bus_bra": "BUS-BRA",
    "bus_dataset_b": "BUS", "bus_uc": "BUS-UC", "bus_uclm": "BUS-UCLM", "busi": "Breast", "camus": "CAMUS",
    "cardiac_udc": "CardiacUDC", "ccaui": "Common Carotid Artery", "ddti": "DDTI", "echocp": "EchoCP",
    "echonet_dynamic": "EchoNet-Dynamic", "echonet_pediatric": "Echonet Pediatric", "fallmud": "FALLMUD",
    "fass": "FASS", "fast_unet": "Fast-U-Net", "fh_ps_aop": "FH-PS-AOP", "gist514_db": "GIST514-DB", "hc18": "HC18",
    "kidney_us": "KidneyUS", "luss_phantom": "LUSS phantom", "microseg": "MUP & MicroSeg", "mmotu_2d": "MMOTU 2d",
    "mmotu_3d": "MMOTU 3d", "mup": "MUP & MicroSeg", "regpro": "regPro", "s1": "S1", "segthy": "Segthy-Dataset",
    "stmus_nda": "STMUS NDA", "stu_hospital": "STU-Hospital", "tg3k": "TG3K", "thyroid_cineclip": "Thyroid US CineClip",
    "tn3k": "TN3K", "tnscui": "TNSCUI", "ubpd": "UBPD", "us105": "105US", "us_nerve": "US Nerve Segmentation",
}  # fmt: skip


@dataclass(frozen=True)
class Count:
    """Images and masks."""

    images: int = 0
    masks: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.images + other.images, self.masks + other.masks)


@dataclass(frozen=True)
class Entry:
    """A set or an application.

    Attributes:
        name: the paper's where it has one, else ours.
        application: of a set: the paper's where it has the set, so that a difference is one of data, not of names.
        ours: what the collection has.
        paper: what the paper has.
    """

    name: str
    application: str
    ours: Count = field(default_factory=Count)
    paper: Count = field(default_factory=Count)


@dataclass(frozen=True)
class Collection:
    """A collection beside the paper's.

    Attributes:
        sets: all of the paper's Table 1 and all others of the collection; by application, the largest first.
        excluded: images on no side of the merged files, because they show what is on the test side.
    """

    sets: tuple[Entry, ...]
    excluded: int

    @property
    def applications(self) -> tuple[Entry, ...]:
        """Sums over the sets, in their order."""
        found: dict[str, Entry] = {}
        for item in self.sets:
            before = found.get(item.application, Entry(item.application, item.application))
            found[item.application] = Entry(
                item.application, item.application, before.ours + item.ours, before.paper + item.paper
            )
        return tuple(found.values())

    @property
    def total(self) -> Entry:
        """The sum of all sets."""
        ours, paper = Count(), Count()
        for item in self.sets:
            ours, paper = ours + item.ours, paper + item.paper
        return Entry("all", "", ours, paper)

    def there(self) -> int:
        """Return the number of sets that the collection has images of."""
        return sum(item.ours.images > 0 for item in self.sets)


def read_collection(root: Path) -> Collection:
    """Count what the merged annotation files of a collection hold.

    Args:
        root: folder with ``train.agnostic.json``, ``val.agnostic.json`` and ``test.agnostic.json``.

    Raises:
        DataError: a file is missing, or is not as ``python -m data_prep prepare`` writes it.
    """
    images: Counter[str] = Counter()
    masks: Counter[str] = Counter()
    applications: dict[str, str] = {}
    for split in SPLITS:
        _count(root / f"{split}.agnostic.json", images, masks, applications)
    if not images:
        raise DataError(f"{root}: images were expected in its merged files, found none; convert a set and merge again")
    paper = {
        row["dataset"]: Entry(row["dataset"], row["application"], paper=Count(row["images"], row["masks"]))
        for row in paper_tables()["table1_us43d"]
    }
    found = dict(paper)
    for slug in sorted(images):
        name = TABLE1.get(slug, slug)
        before = found.get(name, Entry(name, applications[slug]))
        ours = before.ours + Count(images[slug], masks[slug])
        found[name] = Entry(name, before.application, ours, before.paper)
    return Collection(_ordered(list(found.values())), _excluded(root))


def _ordered(sets: list[Entry]) -> tuple[Entry, ...]:
    """Return sets by application: the paper's largest application and set first, then those it does not have."""
    most: dict[str, Count] = {}
    for item in sets:
        most[item.application] = most.get(item.application, Count()) + max(item.paper, item.ours, key=_size)
    return tuple(sorted(sets, key=lambda item: (
        -_size(most[item.application]), item.application, -max(_size(item.paper), _size(item.ours)), item.name,
    )))  # fmt: skip


def _size(count: Count) -> int:
    return count.masks


def _count(path: Path, images: Counter[str], masks: Counter[str], applications: dict[str, str]) -> None:
    """Add what an annotation file holds, by data set."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; run `python -m data_prep prepare {path.parent}`, which writes it")
    content = _json(path)
    try:
        dataset_of = {}
        for image in content["images"]:
            slug = str(image["dataset"])
            dataset_of[image["id"]] = slug
            images[slug] += 1
            applications.setdefault(slug, str(image.get("application") or NO_APPLICATION))
        masks.update(dataset_of[item["image_id"]] for item in content["annotations"])
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path}: a merged annotation file, whose images name their dataset, was expected ({error!r}); run "
            f"`python -m data_prep prepare {path.parent}` again"
        ) from error


def _excluded(root: Path) -> int:
    """Return the images that the collection's manifest counts as excluded; 0 without a manifest."""
    path = root / MANIFEST
    if not path.is_file():
        return 0
    try:
        return int(_json(path)["totals"]["excluded"]["images"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is no manifest of a collection ({error!r}); run `python -m data_prep prepare {root}`"
        ) from error


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(read_bytes(path))
    except ValueError as error:
        raise DataError(f"{path} is no JSON file ({error}); run `python -m data_prep prepare {path.parent}`") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: a JSON object was expected, found a {type(content).__name__}")
    return content
