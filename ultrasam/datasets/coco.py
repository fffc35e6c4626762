"""Reading COCO annotation files with every check up front, so that training meets sound data only."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ultrasam.datasets.coco_ids import IdValue, category_labels, dense_ids, id_key
from ultrasam.datasets.coco_images import load_json, need, read_images, records_of
from ultrasam.datasets.coco_types import Box, CocoCollection, CocoImage, CocoObject, check_files
from ultrasam.datasets.coco_write import write_coco
from ultrasam.errors import DataError
from ultrasam.geometry.rle import RLE, decode_segmentation, measure_rles

__all__ = ["CocoCollection", "CocoImage", "CocoObject", "check_files", "read_coco", "write_coco"]

logger = logging.getLogger(__name__)

# A box of the file is believed when no edge is farther than this from the box of its own mask, in pixels:
# exporters differ by rounding and by whether the last pixel counts.
BOX_TOLERANCE = 2.0

# Objects measured together.
_PORTION = 4096
_RLE_KEYS = {"size", "counts"}


def read_coco(
    path: str | Path, image_root: str | Path, *, classes: Sequence[str] | None = None
) -> CocoCollection:
    """Read an annotation file.

    Polygons, compressed and uncompressed RLE are all turned into compressed RLE. Annotation ids that are not
    unique positive integers are numbered anew from 1 in the order of the file. Objects with an empty mask are
    dropped, listed in ``dropped`` and counted in one warning. Areas are those of the masks; so are the boxes
    where the file has none or one that does not fit its mask.

    Args:
        path: the JSON file.
        image_root: folder that relative file names start from.
        classes: class names in the order wanted for the labels; None takes them from the file in the order
            of the category ids.

    Raises:
        DataError: the file is not sound COCO with a mask for every object; the message names the record.
        ConfigError: ``classes`` are not exactly the categories of the file.
    """
    with _paused_collector():
        return _read(Path(path), Path(image_root), classes)


@contextmanager
def _paused_collector() -> Iterator[None]:
    """Keep Python from looking for reference cycles in the records, of which there are millions and no cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _read(source: Path, image_root: Path, classes: Sequence[str] | None) -> CocoCollection:
    content = load_json(source)
    names, labels = category_labels(records_of(content, "categories", source), classes, source)
    images, by_id = read_images(records_of(content, "images", source), source, image_root)
    # What is read is let go, or a large file would be in memory twice.
    del content["images"]
    records = records_of(content, "annotations", source)
    ids, renumbered = dense_ids([record.get("id") for record in records], lowest=1)
    if renumbered:
        logger.warning("%s: annotation ids are not unique integers from 1; numbered anew from 1", source)

    dropped: list[tuple[int, str]] = []
    replaced = 0
    for begin in range(0, len(records), _PORTION):
        part = records[begin : begin + _PORTION]
        records[begin : begin + _PORTION] = [{}] * len(part)
        found, owners = [], []
        described = [_describe(source, *pair) for pair in zip(ids[begin : begin + _PORTION], part, strict=True)]
        for number, record, what in zip(ids[begin : begin + _PORTION], part, described, strict=True):
            owners.append(images[_look_up(record, "image_id", by_id, "images", what)])
            label = _look_up(record, "category_id", labels, "categories", what)
            found.append(_object(record, number, label, owners[-1], what))
        empty, other_boxes = _attach(part, found, owners, described)
        dropped += empty
        replaced += other_boxes
    _report(source, dropped, len(records), replaced)
    return CocoCollection(source, names, images, dropped)


def _describe(source: Path, number: int, record: Mapping[str, Any]) -> str:
    given = record.get("id")
    return f"{source}, annotation {number}" + ("" if given == number else f" (id {given!r} in the file)")


def _look_up(record: Mapping[str, Any], key: str, table: Mapping[IdValue, int], among: str, what: str) -> int:
    value = id_key(need(record, key, what), what)
    if value not in table:
        raise DataError(
            f"{what}: {key} {value!r} is not among the {len(table)} {among} of the file; "
            "add the missing record or delete the annotation"
        )
    return table[value]


def _object(record: Mapping[str, Any], number: int, label: int, image: CocoImage, what: str) -> CocoObject:
    """The object with its mask; box and area are measured later, for all objects together."""
    given = record.get("id")
    return CocoObject(
        annotation_id=number,
        label=label,
        rle=_segmentation(record, image, what),
        box=(0.0, 0.0, 0.0, 0.0),
        area=0,
        iscrowd=record.get("iscrowd", 0) in (1, "1"),
        source_id=given if isinstance(given, (int, str)) else None,
    )


def _segmentation(record: Mapping[str, Any], image: CocoImage, what: str) -> RLE:
    segmentation = record.get("segmentation")
    if segmentation is None or segmentation in ([], [[]], {}):
        found = "a box but no mask" if record.get("bbox") else "no mask"
        raise DataError(
            f"{what}: the object has {found} (segmentation {segmentation!r}), but masks are needed; "
            "draw the masks or predict them from the boxes first"
        )
    if (
        type(segmentation) is dict
        and segmentation.keys() == _RLE_KEYS
        and type(segmentation["counts"]) is str
        and segmentation["size"] == [image.height, image.width]
    ):
        # The form that is wanted; the counts are checked with those of the other objects.
        return segmentation
    return decode_segmentation(segmentation, image.height, image.width, where=what, check=False)


def _attach(
    records: Sequence[Mapping[str, Any]],
    objects: Sequence[CocoObject],
    images: Sequence[CocoImage],
    described: Sequence[str],
) -> tuple[list[tuple[int, str]], int]:
    """Measure objects and put each into its image; give those that were left out, and the number of new boxes."""
    areas, boxes = measure_rles([item.rle for item in objects], described)
    dropped: list[tuple[int, str]] = []
    replaced = 0
    measured = zip(records, objects, images, areas.tolist(), boxes.tolist(), strict=True)
    for record, item, image, area, (x1, y1, x2, y2) in measured:
        if area == 0:
            dropped.append((item.annotation_id, "the mask is empty"))
            continue
        given = _given_box(record.get("bbox"), (x1, y1, x2, y2))
        replaced += given is None and record.get("bbox") is not None
        item.area, item.box = area, given or (x1, y1, x2, y2)
        image.objects.append(item)
    return dropped, replaced


def _report(source: Path, dropped: Sequence[tuple[int, str]], total: int, replaced: int) -> None:
    """Warn of objects left out and of boxes replaced."""
    if dropped:
        first = ", ".join(str(number) for number, _ in dropped[:5]) + (" ..." if len(dropped) > 5 else "")
        logger.warning(
            "%s: %d of %d objects left out because their mask is empty (annotations %s)",
            source, len(dropped), total, first,
        )  # fmt: skip
    if replaced:
        logger.warning("%s: %d boxes do not fit their masks and are taken from the masks", source, replaced)


def _given_box(bbox: Any, mask_box: Box) -> Box | None:
    """The box x, y, width, height of the file as corners if it is sane and fits the mask, else None."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        return None
    if not all(type(v) in (int, float) and math.isfinite(v) for v in bbox):
        return None
    x, y, width, height = bbox
    corners = (float(x), float(y), float(x + width), float(y + height))
    if corners == mask_box:
        return mask_box
    close = all(abs(a - b) <= BOX_TOLERANCE for a, b in zip(corners, mask_box, strict=True))
    return corners if close and width > 0 and height > 0 else None
