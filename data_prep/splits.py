"""Which side of the split each image is on: official folds or sides, and validation by group."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_prep.records import DatasetInfo, Record
from ultrasam.errors import ConfigError, DataError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class SplitPlan:
    """Choices of the command.

    Attributes:
        test_folds: folds of the test side; None for the dataset's own choice.
        train_folds: folds of training and validation; None for all others.
        validation_fraction: part of the training images that validation gets, whole groups at a time.
        seed: picks another validation part.
    """

    test_folds: tuple[int, ...] | None = None
    train_folds: tuple[int, ...] | None = None
    validation_fraction: float = 0.05
    seed: int = 0


def official_sides(records: Sequence[Record], info: DatasetInfo, plan: SplitPlan) -> dict[str, str]:
    """Return ``"train"`` or ``"test"`` by record key; records of folds not asked for are left out.

    Raises:
        ConfigError: folds asked for that the set does not have, or given to both sides.
        DataError: a group on both sides.
    """
    if not 0 <= plan.validation_fraction < 1:
        raise ConfigError("validation fraction: 0 or more and below 1 was expected, "
                          f"found {plan.validation_fraction}")
    folds = {record.fold for record in records if record.fold is not None}
    asked = set(plan.test_folds or ()) | set(plan.train_folds or ())
    if asked - folds:
        raise ConfigError(f"{info.slug}: folds {sorted(asked - folds)} do not exist; the set has "
                          f"{sorted(folds) if folds else 'no folds'}")
    test = set(info.test_folds if plan.test_folds is None else plan.test_folds)
    train = folds - test if plan.train_folds is None else set(plan.train_folds)
    if test & train:
        raise ConfigError(f"{info.slug}: folds {sorted(test & train)} were given to training and to test; "
                          "a fold can be on one side only")
    sides: dict[str, str] = {}
    for record in records:
        if record.fold is None:
            sides[record.key] = record.split or "train"
        elif record.fold in test or record.fold in train:
            sides[record.key] = "test" if record.fold in test else "train"
    check_disjoint(records, sides, info.slug)
    return sides


def with_validation(
    records: Sequence[Record], sides: Mapping[str, str], plan: SplitPlan, slug: str
) -> dict[str, str]:
    """Return the sides with some groups of the training side moved to ``"val"``.

    Groups are ranked by a hash of seed and name, so that the rank of a group does not depend on which other
    groups are there; groups are taken in that order until the asked fraction of training images is reached,
    never the last one.

    Raises:
        DataError: a group on two sides.
    """
    sizes: dict[str, int] = defaultdict(int)
    for record in records:
        if sides[record.key] == "train":
            sizes[record.group] += 1
    wanted = plan.validation_fraction * sum(sizes.values())
    chosen: set[str] = set()
    taken = 0
    for group in sorted(sizes, key=lambda name: _rank(plan.seed, slug, name)):
        if taken >= wanted or len(chosen) + 1 >= len(sizes):
            break
        chosen.add(group)
        taken += sizes[group]
    result = {
        record.key: "val" if sides[record.key] == "train" and record.group in chosen else sides[record.key]
        for record in records
    }
    check_disjoint(records, result, slug)
    return result


def check_disjoint(records: Sequence[Record], sides: Mapping[str, str], slug: str) -> None:
    """Raise DataError when a group is on two sides."""
    where: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.key in sides:
            where[record.group].add(sides[record.key])
    torn = sorted(group for group, names in where.items() if len(names) > 1)
    if torn:
        raise DataError(f"{slug}: {len(torn)} groups are on two sides of the split (first: {torn[:5]}); "
                        "a patient must be on one side only, so choose folds that keep patients together")


def _rank(seed: int, slug: str, group: str) -> bytes:
    """Return a value that orders groups in a way that looks random and never changes."""
    return hashlib.sha256(f"{seed}/{slug}/{group}".encode()).digest()
