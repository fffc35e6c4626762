"""The outer form of a COCO file: its lists of records, whatever they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.doctor.report import LeftOut, Report, shown
from data_prep.doctor.values import tame
from ultrasam.datasets.coco_images import load_json
from ultrasam.errors import DataError

Record = dict[str, Any]

# Keys that are looked at one by one later; NaN in any other is replaced here.
_EXAMINED = {
    "images": ("id", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "segmentation", "bbox", "area", "iscrowd"),
    "categories": ("id",),
}


@dataclass(frozen=True)
class Document:
    """The records of a COCO file, each a JSON object of harmless values.

    Attributes:
        source: the file.
        rest: every other key of the file.
    """

    source: Path
    images: list[Record]
    annotations: list[Record]
    categories: list[Record]
    rest: Record


def read_document(source: Path, report: Report, left_out: LeftOut) -> Document:
    """Read a COCO file as far as it can be read at all.

    Raises:
        DataError: the file is not JSON, or holds no list of images.
    """
    content = load_json(source)
    lists = {kind: _records(content, kind, source, report, left_out) for kind in _EXAMINED}
    if not lists["images"]:
        raise DataError(f"{source}: 'images' holds no image record; give a COCO instances file")
    rest = {key: value for key, value in content.items() if key not in _EXAMINED}
    harmless = tame(rest, finite=True)
    if harmless is not rest:
        report.changed("NaN, broken text or deep nesting", "outside the lists of records", "replaced by null or '?'")
    return Document(source, **lists, rest=harmless)


def _records(
    content: Mapping[str, Any], kind: str, source: Path, report: Report, left_out: LeftOut
) -> list[Record]:
    """Return the records of one list; what is no record is left out."""
    value = content.get(kind)
    if value is None and kind != "images":
        report.changed(f"no list of {kind}", source.name, "taken as empty")
        return []
    if isinstance(value, dict) and value and all(isinstance(item, dict) for item in value.values()):
        report.changed("records in a JSON object instead of a list", kind, "made a list")
        value = list(value.values())
    if not isinstance(value, list):
        found = f"found {shown(value)}" if kind in content else f"found the keys {shown(sorted(content)[:8])}"
        raise DataError(f"{source}: a list of records was expected under {kind!r}, {found}; "
                        "give a COCO instances file")
    records: list[Record] = []
    for position, item in enumerate(value):
        where = f"{kind}[{position}]"
        if isinstance(item, dict):
            records.append(_harmless(item, kind, where, report))
        else:
            report.left("record that is no JSON object", where, "set aside")
            left_out.add(kind, tame(item, finite=False), "it is no JSON object")
    return records


def _harmless(record: Record, kind: str, where: str, report: Report) -> Record:
    """Return the record with harmless values; those examined later may still be NaN."""
    values = {key: tame(value, finite=key not in _EXAMINED[kind]) for key, value in record.items()}
    values = tame(values, finite=False)
    if all(values.get(key) is value and key in values for key, value in record.items()):
        return record
    report.changed("NaN, broken text or deep nesting", where, "replaced by null or '?'")
    return values
