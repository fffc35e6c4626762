"""The examination of a COCO file, from the file to its repaired content."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.doctor.annotations import assign, mend_annotations, number_annotations
from data_prep.doctor.categories import Categories
from data_prep.doctor.document import Record, read_document
from data_prep.doctor.images import (
    Entry,
    examine_images,
    image_record,
    name_images,
    number_images,
    settle_size,
)
from data_prep.doctor.locate import guess_root
from data_prep.doctor.publish import StoredImage
from data_prep.doctor.report import LeftOut, Report
from ultrasam.errors import ConfigError


@dataclass(frozen=True)
class Diagnosis:
    """What was found, and the repaired copy as far as it is in memory.

    Attributes:
        summary: what was examined, one sentence.
        report: the faults.
        left_out: records that are not in the repaired copy.
        content: the repaired COCO document.
        images: the files that belong to it.
    """

    summary: str
    report: Report
    left_out: LeftOut
    content: dict[str, Any]
    images: list[StoredImage]


def diagnose_coco(
    source: Path, root: Path | None = None, *, boxes_to_masks: bool = False, rescale: bool = False
) -> Diagnosis:
    """Examine a COCO file and the images that it names.

    Args:
        source: the JSON file.
        root: folder that relative file names start from; None looks for it near the file.
        boxes_to_masks: draw the box of an object without a mask as its mask.
        rescale: where width and height of a record are not those of the file but of the same shape, scale the
            shapes even if nothing proves that they were drawn at that size.

    Raises:
        DataError: the file is no JSON or holds no list of images.
        ConfigError: ``root`` is no folder.
    """
    if root is not None and not root.is_dir():
        raise ConfigError(f"{root}: the folder of the images was expected, found no folder there")
    report, left_out = Report(), LeftOut()
    document = read_document(source, report, left_out)
    if root is None:
        names = [name for record in document.images if isinstance(name := record.get("file_name"), str)]
        root = guess_root(source, names)
    entries = examine_images(document.images, root, report)
    owned = assign(document.annotations, entries, report, left_out)
    drawn_on: dict[int, list[Record]] = defaultdict(list)
    for item in owned:
        drawn_on[id(item.entry)].append(item.record)
    for entry in entries:
        settle_size(entry, drawn_on[id(entry)], report, rescale=rescale)
    _refuse_turned_twins(entries, report)
    number_images(entries, report)
    name_images(entries)
    categories = Categories(document.categories, report)
    annotations = mend_annotations(owned, categories, report, left_out, boxes_to_masks=boxes_to_masks)
    number_annotations(document.annotations, annotations, report)
    categories.complete()
    for record in annotations:
        record["image_id"] = record["image_id"].new_id
    kept = [entry for entry in entries if entry.kept]
    for entry in entries:
        if not entry.kept:
            left_out.add("images", entry.record, entry.aside or "it is merged with an earlier record of its file")
    content = {**document.rest, "images": [image_record(entry) for entry in kept], "annotations": annotations,
               "categories": categories.records}
    summary = (f"{source}: {len(entries)} images (in {root}), {len(document.annotations)} annotations, "
               f"{len(document.categories)} categories")
    return Diagnosis(summary, report, left_out, content, [_stored(entry) for entry in kept])


def _refuse_turned_twins(entries: list[Entry], report: Report) -> None:
    """Two records of one file whose annotations refer to it before and after its EXIF turn cannot be merged."""
    for entry in entries:
        if entry.owner is not None and not entry.aside and entry.as_stored != entry.owner.as_stored:
            entry.aside = "another record of the same file was annotated in another orientation"
            report.left("same image listed in two orientations", entry.where, "set aside, with their annotations")


def _stored(entry: Entry) -> StoredImage:
    """Return what becomes of the file of a kept entry."""
    picture = entry.picture
    assert entry.path is not None and picture is not None, "a kept image has a file"
    return StoredImage(entry.path, entry.new_name, bool(picture.faults), picture.orientation, entry.as_stored)
