"""What the manifest of a collection says: counts, checksums, every rule, and all that was left out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import ultrasam
from data_prep.collection.export import SetFacts
from data_prep.collection.families import FAMILIES, PERCENTAGES
from data_prep.collection.near_duplicates import CROWD, DISTANCE
from data_prep.collection.pictures import LIKENESS
from data_prep.collection.sets import EXCLUDED, SIDES, Json
from data_prep.collection.streams import FileFacts
from data_prep.collection.survey import Decisions, NearDuplicates, Surveyed
from data_prep.records import DatasetInfo

NAME = "manifest.json"


def collection_manifest(
    found: Surveyed,
    near: NearDuplicates,
    decisions: Decisions,
    facts: Mapping[str, SetFacts],
    written: Mapping[str, FileFacts],
    *,
    infos: Mapping[str, DatasetInfo],
    not_taken: Mapping[str, str],
) -> Json:
    """Return the content of ``ROOT/manifest.json``; it depends on the converted sets only.

    Args:
        found: the images.
        near: near duplicates among them.
        decisions: where they go.
        facts: what was written of each set.
        written: what was written of each merged file.
        infos: catalogue entries by slug.
        not_taken: slug to reason, for converted sets that are not in the collection.
    """
    return {
        "collection": "all converted sets of this folder",
        "ultrasam_version": ultrasam.__version__,
        "rules": _rules(near),
        "totals": _sum_counts(list(facts.values())),
        "applications": _by_application(found, facts),
        "sets": {slug: _set_entry(slug, found, facts[slug], infos.get(slug)) for slug in found.slugs},
        "not_taken": dict(sorted(not_taken.items())),
        "near_duplicates": _near_entry(found, near, decisions),
        "excluded": _excluded_entries(found, decisions),
        "files": {name: {**entry.as_json(), **_left_out(name, found, decisions)} for name, entry in written.items()},
    }


def _rules(near: NearDuplicates) -> Json:
    """Return every rule that was applied, in words."""
    confirmation = (f"and whose fine structure correlates by {LIKENESS} or more where both are bright"
                    if near.confirmed else "(not confirmed by opening the images)")
    return {
        "near_duplicates": "images of different groups whose 64-bit perceptual hashes differ in at most "
                           f"{DISTANCE} bits {confirmation}; hashes of nearly no or nearly all bits, and those of "
                           f"more than {CROWD} groups, are not compared",
        "groups": "groups (patient, video, volume) that hold near duplicates of each other are one joined group, also "
                  "across sets",
        "test": "official test sides stay",
        "excluded": "all other images of a joined group that has an image on a test side are on no side; they are kept "
                    "in annotations/excluded.<slug>.json",
        "validation": "of the rest the fraction that each set's conversion chose, by joined group, in the order of a "
                      "hash of seed and name; never the last group of a set",
        "families": {family: f"sets with a word beginning with {' or '.join(stems)} in application or organ"
                     for family, stems in FAMILIES.items()},
        "without": "train.without_<family>.json and val.without_<family>.json leave out the family's sets, and images "
                   "of other sets that are in one joined group with their images",
        "fractions": f"train.<family>_<N>.json, N in {list(PERCENTAGES)}: joined groups of the family in the order of "
                     "a hash as long as at most N % of its training images stay, at least one group; smaller ones "
                     "are in larger ones, all else is unchanged",
        "merged_annotations": "one category, object; class_name, dataset and group say where an object is from",
    }


def _sum_counts(facts: list[SetFacts]) -> Json:
    """Return images and masks by side, summed."""
    return {side: {key: sum(entry.counts[side][key] for entry in facts) for key in ("images", "masks")}
            for side in SIDES}


def _by_application(found: Surveyed, facts: Mapping[str, SetFacts]) -> Json:
    """Return the summed counts of each application."""
    sets: dict[str, list[str]] = defaultdict(list)
    for slug, application in {picture.dataset: picture.application for picture in found.pictures}.items():
        sets[application].append(slug)
    return {application: {"sets": sorted(slugs), **_sum_counts([facts[slug] for slug in slugs])}
            for application, slugs in sorted(sets.items())}


def _set_entry(slug: str, found: Surveyed, facts: SetFacts, info: DatasetInfo | None) -> Json:
    """Return what the manifest says of a set; the rest is in the set's own manifest."""
    own = facts.manifest
    return {
        "name": own.get("name", slug),
        "family": found.families.get(slug),
        "licence": own.get("licence"),
        "home": own.get("home"),
        "in_catalogue": info is not None,
        "converted_by": own.get("ultrasam_version"),
        "mask_rules": own.get("rules"),
        "mask_changes": own.get("changes"),
        "validation": asdict(found.validation[slug]),
        "failed_images": (own.get("counts") or {}).get("failed"),
        "sources": own.get("sources"),
        "splits": facts.counts,
        "annotations_sha256": own["annotations_sha256"],
    }


def _near_entry(found: Surveyed, near: NearDuplicates, decisions: Decisions) -> Json:
    """Return how many near duplicates there are and which groups they unite."""
    between: Counter[str] = Counter()
    for one, two in near.pairs.tolist():
        between[" + ".join(sorted({found.pictures[one].dataset, found.pictures[two].dataset}))] += 1
    return {
        "confirmed_by_opening": near.confirmed,
        "candidate_pairs": len(near.searched.pairs),
        "pairs": len(near.pairs),
        "pairs_by_sets": dict(sorted(between.items())),
        "blank_hashes": near.searched.blank,
        "crowded_hashes": near.searched.crowded,
        "joined_groups": [groups for groups in decisions.joined.groups if len(groups) > 1],
    }


def _excluded_entries(found: Surveyed, decisions: Decisions) -> list[Json]:
    """Return, for every joined group with excluded images, which these are and what test groups are the reason."""
    images: dict[int, list[int]] = defaultdict(list)
    reasons: dict[int, set[str]] = defaultdict(set)
    for position, (label, side) in enumerate(zip(decisions.joined.labels.tolist(), decisions.sides, strict=True)):
        if side == EXCLUDED:
            images[label].append(position)
        elif side == "test":
            reasons[label].add(found.pictures[position].group)
    entries = []
    for label, positions in sorted(images.items()):
        pictures = [found.pictures[position] for position in positions]
        entries.append({
            "groups": sorted({picture.group for picture in pictures}),
            "reason": f"joined by near duplicates with {len(reasons[label])} groups of a test side",
            "test_groups": sorted(reasons[label]),
            "images": len(pictures),
            "masks": sum(picture.masks for picture in pictures),
            "images_by_set": dict(sorted(Counter(picture.dataset for picture in pictures).items())),
        })
    return entries


def _left_out(name: str, found: Surveyed, decisions: Decisions) -> Json:
    """Return how many images of its split, by set, a merged file leaves out."""
    split = name.split(".")[0]
    marks = decisions.files[decisions.copies.get(name, name)].tolist()
    images = zip(found.pictures, decisions.sides, marks, strict=True)
    missing = Counter(picture.dataset for picture, side, mark in images if side == split and not mark)
    return {"left_out_images": dict(sorted(missing.items()))}


def earlier_files(path: Path, content: Json) -> list[str]:
    """Return the names of merged files that a manifest lists; they are plain names beside it."""
    names = content.get("files")
    return [name for name in names if (path.parent / name).is_file()] if isinstance(names, dict) else []
