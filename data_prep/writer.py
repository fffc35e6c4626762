"""Writing a converted dataset: COCO files per split, their class-agnostic twins, and the manifest."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import ultrasam
from data_prep.processing import Converted, Failure
from data_prep.records import DatasetInfo, Record
from data_prep.splits import SPLITS, SplitPlan
from ultrasam.datasets.coco import write_coco

AGNOSTIC = "object"


def write_set(
    folder: Path,
    info: DatasetInfo,
    plan: SplitPlan,
    *,
    records: Sequence[Record],
    converted: Sequence[Converted],
    sides: Mapping[str, str],
    failures: Sequence[Failure],
    unlabelled: Sequence[str],
    not_asked_for: int,
    unused: Sequence[str],
    raw: Path,
) -> dict[str, object]:
    """Write ``annotations/`` and ``manifest.json`` into a dataset's folder and return the manifest.

    Args:
        folder: the dataset's folder, which holds ``images/`` already.
        info: catalogue entry.
        plan: choices of the command, recorded in the manifest.
        records: converted records, sorted by key.
        converted: their outcomes, in the same order.
        sides: split name by record key.
        failures: images left out.
        unlabelled: keys of images left out because nobody annotated them.
        not_asked_for: number of images in folds that are on neither side.
        unused: image files of the source that no record names.
        raw: folder of the raw files.
    """
    annotations = folder / "annotations"
    annotations.mkdir()
    files: dict[str, str] = {}
    for split in SPLITS:
        part = [(record, done) for record, done in zip(records, converted, strict=True)
                if sides[record.key] == split]
        if not part:
            continue
        for name, categories in ((f"{split}.{info.slug}.json", info.categories),
                                 (f"{split}.{info.slug}.agnostic.json", (AGNOSTIC,))):
            write_coco(annotations / name, coco_dict(info, split, part, categories, raw))
            files[name] = hashlib.sha256((annotations / name).read_bytes()).hexdigest()
    manifest: dict[str, object] = {
        "dataset": info.slug,
        "name": info.name,
        "home": info.home,
        "licence": info.licence,
        "ultrasam_version": ultrasam.__version__,
        "choices": asdict(plan),
        "rules": asdict(info.rules),
        "changes": _summed(converted),
        "published": dict(info.expected),
        "counts": {
            "images": len(converted),
            "masks": sum(len(done.objects) for done in converted),
            "groups": len({record.group for record in records}),
            "failed": len(failures),
            "unlabelled": len(unlabelled),
            "not_asked_for": not_asked_for,
            "table_disagreements": sum(bool(done.notes) for done in converted),
            "unused_files": len(unused),
        },
        "splits": {split: split_counts(records, converted, sides, split) for split in SPLITS},
        "annotations_sha256": files,
        "sources": _source_digest(converted),
        "failures": [asdict(failure) for failure in failures],
        "unlabelled": list(unlabelled),
        "table_disagreements": [note for done in converted for note in done.notes],
        "unused_files": list(unused),
    }
    temporary = folder / "manifest.json.partial"
    temporary.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(folder / "manifest.json")
    return manifest


def coco_dict(
    info: DatasetInfo,
    split: str,
    part: Sequence[tuple[Record, Converted]],
    categories: Sequence[str],
    raw: Path,
) -> dict[str, object]:
    """Return the COCO document of one split; with the one category ``object`` for the agnostic twin.

    Image and annotation ids count from 1 in the order of the records, so that both twins agree.
    """
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    agnostic = tuple(categories) == (AGNOSTIC,)
    ids = {name: number for number, name in enumerate(categories, start=1)}
    for image_id, (record, done) in enumerate(part, start=1):
        images.append({
            "id": image_id,
            "file_name": f"{info.slug}/images/{done.file_name}",
            "width": done.width,
            "height": done.height,
            "dataset": info.slug,
            "application": info.application,
            "group": f"{info.slug}/{record.group}",
            "split": split,
            "source": record.image.paths[0].relative_to(raw).as_posix(),
            "phash": done.phash,
            **_stated(record, done),
        })
        for item in done.objects:
            annotations.append({
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": ids[AGNOSTIC if agnostic else str(item["category"])],
                "segmentation": item["segmentation"],
                "area": item["area"],
                "bbox": item["bbox"],
                "iscrowd": 0,
            })
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
    }


def _stated(record: Record, done: Converted) -> dict[str, object]:
    """Return the fields of an image record that only some images have."""
    optional: dict[str, object] = {
        "class": record.label,
        "frame": record.frame,
        # Along rows and columns, as pydicom's PixelSpacing.
        "spacing_mm": None if record.spacing is None else list(record.spacing),
        "crop": None if done.crop is None else list(done.crop),
    }
    return {name: value for name, value in optional.items() if value is not None} | dict(record.attributes)


def split_counts(
    records: Sequence[Record], converted: Sequence[Converted], sides: Mapping[str, str], split: str
) -> dict[str, object]:
    """Return images, masks, groups, folds and masks by category of one split."""
    part = [(record, done) for record, done in zip(records, converted, strict=True)
            if sides[record.key] == split]
    by_category = Counter(str(item["category"]) for _, done in part for item in done.objects)
    return {
        "images": len(part),
        "masks": sum(by_category.values()),
        "groups": len({record.group for record, _ in part}),
        "folds": sorted({record.fold for record, _ in part if record.fold is not None}),
        "by_category": dict(sorted(by_category.items())),
    }


def _summed(converted: Sequence[Converted]) -> dict[str, int]:
    """Return the changes of the mask rules, summed over the images."""
    total: Counter[str] = Counter()
    for done in converted:
        total.update(done.changes)
    return dict(sorted(total.items()))


def _source_digest(converted: Sequence[Converted]) -> dict[str, object]:
    """Return the number of raw files used and one SHA-256 over their names and checksums."""
    listing = sorted(item for done in converted for item in done.checksums.items())
    text = "".join(f"{checksum}  {name}\n" for name, checksum in listing)
    return {"files": len(listing), "sha256": hashlib.sha256(text.encode()).hexdigest()}
