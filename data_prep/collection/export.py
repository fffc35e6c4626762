"""Writing the files of the collection: those of every set, and the merged ones."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.collection.publish import Publication
from data_prep.collection.sets import EXCLUDED, SIDES, ConvertedSet, Json, annotation_file, read_set
from data_prep.collection.streams import CocoStream, FileFacts, Pieces, pieces
from data_prep.collection.survey import Decisions, Surveyed
from data_prep.splits import SPLITS
from data_prep.writer import AGNOSTIC
from ultrasam.errors import DataError


@dataclass(frozen=True)
class SetFacts:
    """What was written of a set.

    Attributes:
        manifest: the new content of its manifest.
        counts: images, masks and groups by side.
    """

    manifest: Json
    counts: dict[str, dict[str, int]]


def export(root: Path, found: Surveyed, decisions: Decisions, target: Publication) -> tuple[
        dict[str, SetFacts], dict[str, FileFacts]]:
    """Write all annotation files.

    Returns:
        facts by set, and by merged file.

    Raises:
        DataError: a set changed since it was surveyed.
    """
    facts: dict[str, SetFacts] = {}
    with ExitStack() as stack:
        merged: dict[str, CocoStream] = {}
        for name in decisions.files:
            merged[name] = CocoStream(target.path(name), (AGNOSTIC,))
            stack.callback(merged[name].abandon)
        start = 0
        for slug in found.slugs:
            content = read_set(root, slug)
            stop = start + len(content.images)
            expected = [picture.file_name for picture in found.pictures[start:stop]]
            if [image["file_name"] for image in content.images] != expected:
                raise DataError(f"{root / slug} was converted again while the collection was made; run prepare again")
            for image, side in zip(content.images, decisions.sides[start:stop], strict=True):
                image["split"] = side
            members = {name: marks[start:stop].tolist() for name, marks in decisions.files.items()}
            facts[slug] = _export_set(content, target, merged, members)
            start = stop
        written = {name: stream.close() for name, stream in merged.items()}
    for name, same in decisions.copies.items():
        target.same(name, same)
        written[name] = written[same]
    return facts, dict(sorted(written.items()))


def _export_set(
    content: ConvertedSet, target: Publication, merged: Mapping[str, CocoStream], members: Mapping[str, Sequence[bool]]
) -> SetFacts:
    """Write the files of a set, and its images into the merged files that they belong to."""
    slug, checksums = content.slug, {}
    with ExitStack() as stack:
        streams: dict[str, tuple[CocoStream, ...]] = {}
        present = {image["split"] for image in content.images}
        for side in (side for side in SIDES if side in present):
            kinds = [("", tuple(content.categories)), (".agnostic", (AGNOSTIC,))]
            # Excluded images are kept for the next merging only, which reads the named files.
            streams[side] = tuple(CocoStream(target.path(annotation_file(slug, side, twin)), categories)
                                  for twin, categories in (kinds[:1] if side == EXCLUDED else kinds))
            for stream in streams[side]:
                stack.callback(stream.abandon)
        for position, (image, objects) in enumerate(zip(content.images, content.objects, strict=True)):
            text = pieces(image, ("id",))
            named, twins, with_origin = _texts(image, objects, content)
            for stream, texts in zip(streams[image["split"]], (named, twins), strict=False):
                stream.add(text, texts)
            for name, marks in members.items():
                if marks[position]:
                    merged[name].add(text, with_origin)
        for side, pair in streams.items():
            for stream, twin in zip(pair, ("", ".agnostic"), strict=False):
                checksums[Path(annotation_file(slug, side, twin)).name] = stream.close().sha256
    facts = _facts(content, checksums)
    write_json(target.path(f"{slug}/manifest.json"), facts.manifest)
    _write_class_lists(content, target)
    return facts


def _texts(
    image: Json, objects: Sequence[Json], content: ConvertedSet
) -> tuple[list[Pieces], list[Pieces], list[Pieces]]:
    """Return the annotations of an image as pieces around their ids: of the set's files, their twins, merged files."""
    named: list[Pieces] = []
    twins: list[Pieces] = []
    with_origin: list[Pieces] = []
    for item in objects:
        # The mask is most of the text and the same in all three.
        mask = json.dumps(item["segmentation"], sort_keys=True)
        twin = {**item, "category_id": 1}
        origin = {**twin, "class_name": content.categories[item["category_id"] - 1], "dataset": content.slug,
                  "group": image["group"]}
        for record, texts in ((item, named), (twin, twins), (origin, with_origin)):
            before, between, after, end = pieces(record, ("id", "image_id", "segmentation"))
            texts.append((before, between, f"{after}{mask}{end}"))
    return named, twins, with_origin


def _facts(content: ConvertedSet, checksums: Mapping[str, str]) -> SetFacts:
    """Return the counts of a set and its manifest with the new sides."""
    splits: dict[str, Json] = {}
    for side in SIDES:
        part = [(image, objects) for image, objects in zip(content.images, content.objects, strict=True)
                if image["split"] == side]
        names = Counter(content.categories[item["category_id"] - 1] for _, objects in part for item in objects)
        splits[side] = {
            "images": len(part),
            "masks": sum(names.values()),
            "groups": len({image["group"] for image, _ in part}),
            "folds": sorted({image["fold"] for image, _ in part if image.get("fold") is not None}),
            "by_category": dict(sorted(names.items())),
        }
    manifest = {**content.manifest, "splits": {side: splits[side] for side in SPLITS},
                "annotations_sha256": dict(checksums)}
    manifest.pop(EXCLUDED, None)
    if splits[EXCLUDED]["images"]:
        manifest[EXCLUDED] = splits[EXCLUDED]
    counts = {side: {key: splits[side][key] for key in ("images", "masks", "groups")} for side in SIDES}
    return SetFacts(manifest, counts)


def class_names(content: ConvertedSet) -> list[str]:
    """Return the classes of a set's images in the order of their numbers; empty when they have none.

    Where they are (also) categories of the masks the order is that of the categories, so that numbers do not depend on
    which images are there; others follow in alphabetical order.
    """
    found = {str(image["class"]) for image in content.images if image.get("class") is not None}
    if not found & set(content.categories):
        return sorted(found)
    return [*content.categories, *sorted(found - set(content.categories))]


def _write_class_lists(content: ConvertedSet, target: Publication) -> None:
    """Write ``classification/``: the names of the classes, and the images of each split with their class number."""
    names = class_names(content)
    if not names:
        return
    number = {name: str(position) for position, name in enumerate(names)}
    lines: dict[str, list[str]] = defaultdict(list)
    for image in content.images:
        if image.get("class") is not None and image["split"] != EXCLUDED:
            lines[image["split"]].append(f"{image['file_name']} {number[str(image['class'])]}\n")
    folder = f"{content.slug}/classification"
    target.path(f"{folder}/classes.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    for split, text in lines.items():
        target.path(f"{folder}/{split}.txt").write_text("".join(text), encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a manifest as the conversion does."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

