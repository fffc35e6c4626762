"""The annotations: ids, owners, masks, boxes and areas."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from data_prep.doctor.categories import Categories
from data_prep.doctor.document import Record
from data_prep.doctor.images import Entry
from data_prep.doctor.polygons import FEW, FLAT, Mended, mend_polygons, rectangle
from data_prep.doctor.report import LeftOut, Report, shown
from data_prep.doctor.runs import mend_runs
from data_prep.doctor.values import Box, Size, box_of, is_number, key_of, near, scaled
from ultrasam.datasets.coco import BOX_TOLERANCE
from ultrasam.datasets.coco_ids import IdValue, dense_ids
from ultrasam.errors import DataError
from ultrasam.geometry.rle import RLE, decode_segmentation, measure_rles

BOX_ONLY = "box but no mask"
NOTHING = "annotation without mask and box"
NO_PIXEL = "mask without a single pixel"

_ASIDE = "set aside"
_DRAWN = "repaired: their box drawn as the mask"
_REMOVED = "removed"


@dataclass(frozen=True)
class Owned:
    """An annotation and the image record that it belongs to."""

    record: Record
    where: str
    entry: Entry


class _WithImage(Report):
    """Counts the faults of annotations that go aside with their image: none of them is repaired."""

    def __init__(self, report: Report) -> None:
        self.findings = report.findings

    def changed(self, fault: str, where: str, what: str) -> None:
        """Count a fault that would be repaired if the image could be used."""
        self.left(fault, where, "set aside with their image")


@dataclass
class Shape:
    """The repaired mask of an annotation.

    Attributes:
        segmentation: as it goes into the repaired copy.
        rle: the same, compressed.
        area: its pixels.
        box: half-open corners x1, y1, x2, y2 around them.
    """

    segmentation: Any
    rle: RLE
    area: int
    box: Box


def assign(records: Sequence[Record], entries: Sequence[Entry], report: Report, left_out: LeftOut) -> list[Owned]:
    """Return every annotation with its image; those without one are left out."""
    by_key: dict[IdValue, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.key is not None:
            by_key[entry.key].append(entry)
    owned = []
    for position, record in enumerate(records):
        raw = record.get("id")
        where = f"annotation {shown(raw)}" if key_of(raw) is not None else f"annotations[{position}]"
        key = key_of(record.get("image_id"))
        candidates = by_key.get(key, []) if key is not None else []
        different = {id(entry.target): entry for entry in reversed(candidates)}
        fitting = list(different.values()) if len(different) < 2 else _by_size(record, list(different.values()))
        if not candidates:
            report.left("image_id that is no image", f"{where}: {shown(record.get('image_id'))}", _ASIDE)
            left_out.add("annotations", record, "its image_id is not among the images")
        elif len(fitting) != 1:
            report.left("annotation of an image id used twice", f"{where}: {shown(key)}",
                        "set aside: may belong to either image")
            left_out.add("annotations", record, "its image_id names several images")
            for candidate in candidates:
                candidate.target.lost += 1
        else:
            owned.append(Owned(record, where, fitting[0]))
    return owned


def _by_size(record: Record, entries: Sequence[Entry]) -> list[Entry]:
    """Return those of several images whose size is that of the annotation's RLE."""
    segmentation = record.get("segmentation")
    size = segmentation.get("size") if isinstance(segmentation, dict) else None
    return [entry for entry in entries
            if size in [list(found) for found in (entry.recorded, entry.picture and entry.picture.upright) if found]]


def mend_annotations(
    owned: Sequence[Owned], categories: Categories, report: Report, left_out: LeftOut, *, boxes_to_masks: bool
) -> list[Record]:
    """Return the repaired annotations, without final image ids and with their own ids still as found.

    Each comes with its image's `Entry` under ``image_id``.
    """
    made: list[Record] = []
    seen: set[tuple[int, int, str]] = set()
    for item in owned:
        entry = item.entry
        if entry.aside or entry.size is None:
            left_out.add("annotations", item.record, f"its image is left out: {entry.aside}")
            if entry.size is not None:
                _shape(item, entry.size, entry.scale, _WithImage(report), boxes_to_masks=boxes_to_masks)
            continue
        shape, lost = _shape(item, entry.size, entry.scale, report, boxes_to_masks=boxes_to_masks)
        if shape is None:
            left_out.add("annotations", item.record, "no mask could be made of it" if lost else "it shows no object")
            entry.target.lost += lost
            continue
        label = categories.label(item.record, item.where)
        same = (id(entry.target), label, shape.rle["counts"])
        if same in seen:
            report.changed("same object listed twice", item.where, _REMOVED)
            left_out.add("annotations", item.record, "the same mask and category is there already")
            continue
        seen.add(same)
        made.append(_record(item, label, shape, entry, report))
    return made


def number_annotations(all_records: Sequence[Record], made: Sequence[Record], report: Report) -> None:
    """Report unusable ids and, if there are any, number the repaired annotations 1, 2, ... in their order."""
    what = "repaired: all annotations numbered from 1"
    raw = [record.get("id") for record in all_records]
    counts = Counter(value for value in raw if isinstance(value, (int, str)))
    faults = 0
    for position, value in enumerate(raw):
        fault = _id_fault(value, counts)
        if fault:
            faults += 1
            report.changed(fault, f"annotations[{position}]: {shown(value)}", what)
    ids = list(range(1, len(made) + 1)) if faults else dense_ids([record["id"] for record in made], lowest=1)[0]
    for record, number in zip(made, ids, strict=True):
        if record.get("id") != number and isinstance(record.get("id"), (int, str)):
            record.setdefault("source_id", record["id"])
        record["id"] = number


def _id_fault(value: Any, counts: Counter[Any]) -> str:
    """Return what is wrong with an annotation id; empty where it is sound."""
    if value is None:
        return "annotation without id"
    if isinstance(value, str):
        return "annotation id is text"
    if type(value) is not int:
        return "annotation id is no whole number"
    if value == 0:
        return "annotation id 0 (counts as 'no match')"
    if not 0 < value < 2**63:
        return "annotation id negative or of more than 63 bits"
    return "annotation id used twice" if counts[value] > 1 else ""


def _shape(
    item: Owned, size: Size, scale: tuple[float, float], report: Report, *, boxes_to_masks: bool
) -> tuple[Shape | None, bool]:
    """Return the repaired mask of an annotation, None where there is none; reports what was wrong.

    The second value says whether there is an object all the same.
    """
    segmentation, given = item.record.get("segmentation"), box_of(item.record.get("bbox"))
    box = None if given is None else scaled(given, scale)
    mended = _mend(segmentation, size, scale, given, box)
    shape = _measured(mended, size, item.where)
    if shape is not None:
        for fault, what in mended.notes:
            report.changed(fault, item.where, what)
        return shape, False
    box = box or _two_corners(segmentation, mended, scale)
    drawn = rectangle(box, size) if box is not None else None
    outcome = _outcome(mended, drawn is not None, boxes_to_masks)
    faults = [fault for fault, _ in mended.notes]
    if mended.blank:
        faults.append(BOX_ONLY if drawn else NOTHING)
    elif mended.segmentation is not None:
        faults.append(NO_PIXEL)
    shape = _measured(Mended(drawn), size, item.where) if drawn and boxes_to_masks else None
    lost = outcome == _ASIDE or (outcome == _DRAWN and shape is None)
    for fault in dict.fromkeys(faults):
        if lost:
            report.left(fault, item.where, _ASIDE)
        else:
            report.changed(fault, item.where, outcome)
    return shape, lost


def _outcome(mended: Mended, has_box: bool, boxes_to_masks: bool) -> str:
    """Return what becomes of an annotation without a mask."""
    if has_box:
        return _DRAWN if boxes_to_masks else _ASIDE
    # Nothing is lost with an annotation that holds nothing.
    return _REMOVED if mended.blank or mended.segmentation is not None else _ASIDE


def _mend(segmentation: Any, size: Size, scale: tuple[float, float], given: Box | None, box: Box | None) -> Mended:
    if segmentation is None or segmentation == {} or (
            isinstance(segmentation, list) and all(part == [] for part in segmentation)):
        return Mended(None, blank=True)
    if isinstance(segmentation, dict):
        return mend_runs(segmentation, size, box)
    if isinstance(segmentation, list):
        return mend_polygons(segmentation, size, scale, given)
    return Mended(None, [("segmentation of an unknown kind", "dropped")])


def _measured(mended: Mended, size: Size, where: str) -> Shape | None:
    """Return the mask with its area and box, None where it has no pixel."""
    if mended.segmentation is None:
        return None
    try:
        rle = decode_segmentation(mended.segmentation, *size, where=where, check=False)
        areas, boxes = measure_rles([rle])
    except DataError:
        # A polygon that only touches the border is refused as lying outside: it has no pixel either.
        return None
    x1, y1, x2, y2 = boxes[0].tolist()
    return Shape(mended.segmentation, rle, int(areas[0]), (x1, y1, x2, y2)) if areas[0] else None


def _two_corners(segmentation: Any, mended: Mended, scale: tuple[float, float]) -> Box | None:
    """Return the box of a polygon of two points, which some tools write for a box."""
    if not {fault for fault, _ in mended.notes} <= {FLAT, FEW} or not isinstance(segmentation, list):
        return None
    part = segmentation[0] if len(segmentation) == 1 and isinstance(segmentation[0], list) else segmentation
    if len(part) != 4 or not all(is_number(value) for value in part):
        return None
    x, y = sorted(part[0::2]), sorted(part[1::2])
    return scaled((x[0], y[0], x[1], y[1]), scale)


def _record(item: Owned, label: int, shape: Shape, entry: Entry, report: Report) -> Record:
    """Return the repaired record; reports a wrong box, area or iscrowd."""
    record, (x1, y1, x2, y2) = item.record, shape.box
    bbox, area, crowd = record.get("bbox"), record.get("area"), record.get("iscrowd")
    moved = entry.scale != (1.0, 1.0)
    given = box_of(bbox)
    if given is None or moved or not near(given, shape.box, BOX_TOLERANCE):
        if not moved:
            fault = "bbox missing or impossible" if given is None else "bbox does not fit the mask"
            report.changed(fault, item.where, "taken from the mask")
        bbox = [x1, y1, x2 - x1, y2 - y1]
    # Exporters differ by half of the outline, which the size of the box bounds well enough.
    tolerance = 0.05 * shape.area + (x2 - x1) + (y2 - y1)
    if area is None or not is_number(area) or moved or abs(area - shape.area) > tolerance:
        if not moved:
            fault = "area does not fit the mask" if is_number(area) else "area missing or impossible"
            report.changed(fault, item.where, "counted in the mask")
        area = shape.area
    if type(crowd) is not int or crowd not in (0, 1):
        report.changed("iscrowd missing or not 0 or 1", item.where, "set")
        crowd = int(crowd in (1, "1"))
    return {**record, "image_id": entry.target, "category_id": label, "segmentation": shape.segmentation,
            "bbox": bbox, "area": area, "iscrowd": crowd}
