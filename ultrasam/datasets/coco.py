"""Reading and writing COCO annotation files with every check up front, so that training meets sound data only."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ultrasam.datasets.coco_ids import IdValue, category_labels, dense_ids, id_key
from ultrasam.errors import DataError
from ultrasam.geometry.rle import RLE, decode_segmentation, measure_rles
from ultrasam.io.files import read_bytes, write_atomic

logger = logging.getLogger(__name__)

Box = tuple[float, float, float, float]

# A box of the file is believed when no edge is farther than this from the box of its own mask, in pixels:
# exporters differ by rounding and by whether the last pixel counts.
BOX_TOLERANCE = 2.0
_IMAGE_KEYS = frozenset(("id", "file_name", "width", "height", "dataset", "group"))


@dataclass(slots=True)
class CocoObject:
    """One annotated object.

    Attributes:
        annotation_id: unique int from 1.
        label: index into the classes of the collection, from 0.
        rle: compressed mask of the size of the image, ``{"size": [h, w], "counts": str}``.
        box: half-open x1, y1, x2, y2 in pixels.
        area: foreground pixels of the mask.
        iscrowd: the annotation covers a group; such objects are not for training.
        source_id: the id in the file, which may be text, zero or shared.
    """

    annotation_id: int
    label: int
    rle: RLE
    box: Box
    area: int
    iscrowd: bool = False
    source_id: IdValue | None = None


@dataclass(slots=True)
class CocoImage:
    """One image and its objects.

    Attributes:
        id: unique int.
        file_name: as in the file.
        path: where the image is; it is not looked for before it is opened (see :func:`check_files`).
        height: pixels.
        width: pixels.
        dataset: name of the data set.
        group: patient or video; never to be divided between splits.
        objects: may be empty, the image is then a negative.
        extra: every other key of the image record.
    """

    id: int
    file_name: str
    path: Path
    height: int
    width: int
    dataset: str
    group: str
    objects: list[CocoObject]
    extra: dict[str, Any]


@dataclass
class CocoCollection:
    """The content of one annotation file.

    Attributes:
        source: the file.
        classes: names in the order of the labels.
        images: in the order of the file.
        dropped: (annotation id, reason) of every object left out because its mask is empty.
    """

    source: Path
    classes: list[str]
    images: list[CocoImage]
    dropped: list[tuple[int, str]] = field(default_factory=list)


def read_coco(
    path: str | Path, image_root: str | Path, *, classes: Sequence[str] | None = None
) -> CocoCollection:
    """Read an annotation file.

    Polygons, compressed and uncompressed RLE are all turned into compressed RLE. Annotation ids that are not
    unique positive integers are numbered anew from 1 in the order of the file. Objects with an empty mask are
    dropped, listed in ``dropped`` and counted in one warning.

    Args:
        path: the JSON file.
        image_root: folder that relative file names start from.
        classes: class names in the order wanted for the labels; None takes them from the file in the order
            of the category ids.

    Raises:
        DataError: the file is not sound COCO with a mask for every object; the message names the record.
        ConfigError: ``classes`` are not exactly the categories of the file.
    """
    source = Path(path)
    content = _load_json(source)
    names, labels = category_labels(_records(content, "categories", source), classes, source)
    images, by_id = _read_images(_records(content, "images", source), source, Path(image_root))
    dropped = _read_objects(_records(content, "annotations", source), source, images, by_id, labels)
    return CocoCollection(source, names, images, dropped)


def check_files(collection: CocoCollection) -> list[Path]:
    """Image files of a collection that do not exist, in its order."""
    return [image.path for image in collection.images if not image.path.is_file()]


def write_coco(path: str | Path, collection: Mapping[str, Any]) -> None:
    """Write a COCO file, whole or not at all, the same bytes for the same content.

    Records are sorted by id, keys by name, one record a line. NumPy numbers and arrays, bytes (RLE counts)
    and paths are accepted.

    Args:
        path: the JSON file; its folder is created.
        collection: ``images``, ``annotations``, ``categories`` and any other keys.

    Raises:
        DataError: a value that JSON cannot hold (NaN included), or the file cannot be written.
    """
    try:
        parts = [f"{json.dumps(key)}: {_section(collection[key])}" for key in sorted(collection)]
    except (TypeError, ValueError) as error:
        raise DataError(f"{path} cannot be written as JSON ({error}); correct the value first") from error
    write_atomic(path, ("{\n" + ",\n".join(parts) + "\n}\n").encode("utf-8"))


def _section(value: Any) -> str:
    if not isinstance(value, (list, tuple)) or not all(isinstance(record, Mapping) for record in value):
        return _dump(value)
    records = value
    if all("id" in record for record in value):
        records = sorted(value, key=lambda record: _sort_key(record["id"]))
    return "[\n" + ",\n".join(_dump(record) for record in records) + "\n]" if records else "[]"


def _sort_key(value: Any) -> tuple[int, int, str]:
    """Numbers before texts, so that mixed ids still have an order."""
    return (0, int(value), "") if isinstance(value, (int, np.integer)) else (1, 0, str(value))


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, bytes):
        return value.decode("ascii")
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} {value!r} is not a JSON value")


def _load_json(source: Path) -> dict[str, Any]:
    data = read_bytes(source)
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{source} is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}; "
            "export or copy the file again"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is not UTF-8 text (byte {error.start}); save the JSON file as UTF-8") from error
    except RecursionError as error:
        raise DataError(f"{source} is nested too deeply for a COCO file; export it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{source}: a COCO file is one JSON object, found {type(content).__name__}")
    return content


def _records(content: Mapping[str, Any], key: str, source: Path) -> list[dict[str, Any]]:
    if key not in content:
        raise DataError(f"{source}: the key {key!r} is missing, found {sorted(content)[:10]}; is it a COCO instances file?")
    records = content[key]
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DataError(f"{source}: {key!r} must be a list of JSON objects")
    return records


def _need(record: Mapping[str, Any], key: str, what: str) -> Any:
    if record.get(key) is None:
        raise DataError(f"{what}: the key {key!r} is missing, found {sorted(record)}")
    return record[key]


def _read_images(
    records: Sequence[Mapping[str, Any]], source: Path, root: Path
) -> tuple[list[CocoImage], dict[IdValue, int]]:
    """All images, and the position of each by its id in the file."""
    default_dataset = _dataset_from_name(source)
    keys: list[IdValue] = []
    by_id: dict[IdValue, int] = {}
    for index, record in enumerate(records):
        key = id_key(_need(record, "id", f"{source}, image number {index + 1}"), f"{source}, image number {index + 1}")
        if key in by_id:
            raise DataError(
                f"{source}: image id {key!r} is used by {records[by_id[key]].get('file_name')!r} and by "
                f"{record.get('file_name')!r}; give every image an id of its own"
            )
        by_id[key] = index
        keys.append(key)
    ids, renumbered = dense_ids(keys, lowest=0)
    if renumbered:
        logger.warning("%s: image ids are not plain integers; numbered anew from 1", source)

    images = []
    for key, number, record in zip(keys, ids, records, strict=True):
        what = f"{source}, image {key!r}"
        name = _need(record, "file_name", what)
        if not isinstance(name, str) or not name or "\0" in name:
            raise DataError(f"{what}: file_name must be a path, found {name!r}")
        dataset = str(record.get("dataset") or default_dataset)
        extra = {k: v for k, v in record.items() if k not in _IMAGE_KEYS}
        if renumbered:
            extra["source_id"] = key
        images.append(
            CocoImage(
                id=number,
                file_name=name,
                path=_image_path(root, name),
                height=_pixels(record, "height", what),
                width=_pixels(record, "width", what),
                dataset=dataset,
                # Without a patient or video every image is a group of its own.
                group=str(record.get("group") or f"{dataset}/{name}"),
                objects=[],
                extra=extra,
            )
        )
    return images, by_id


def _dataset_from_name(source: Path) -> str:
    words = source.stem.split(".")
    if len(words) > 1 and words[0] in ("train", "val", "test"):
        words = words[1:]
    if len(words) > 1 and words[-1] == "agnostic":
        words = words[:-1]
    return ".".join(words)


def _image_path(root: Path, name: str) -> Path:
    path = root / name
    return Path(os.path.normpath(path)) if ".." in path.parts else path


def _pixels(record: Mapping[str, Any], key: str, what: str) -> int:
    value = _need(record, key, what)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or value < 1 or value % 1:
        raise DataError(f"{what}: {key} must be a whole number of pixels from 1, found {value!r}")
    return int(value)


def _read_objects(
    records: Sequence[Mapping[str, Any]],
    source: Path,
    images: Sequence[CocoImage],
    by_id: Mapping[IdValue, int],
    labels: Mapping[IdValue, int],
) -> list[tuple[int, str]]:
    """Put every object into its image; give the ones that were left out."""
    keys = [record.get("id") for record in records]
    ids, renumbered = dense_ids(keys, lowest=1)
    if renumbered:
        logger.warning(
            "%s: annotation ids are not unique integers from 1; numbered anew from 1 in the order of the file", source
        )
    names = [f"{source}, annotation {number} (id {key!r} in the file)" if renumbered
             else f"{source}, annotation {number}" for number, key in zip(ids, keys, strict=True)]

    owners, classes, rles = [], [], []
    for record, what in zip(records, names, strict=True):
        owner = by_id.get(id_key(_need(record, "image_id", what), what))
        if owner is None:
            raise DataError(f"{what}: image_id {record['image_id']!r} is not among the images; add it or delete the annotation")
        label = labels.get(id_key(_need(record, "category_id", what), what))
        if label is None:
            raise DataError(
                f"{what}: category_id {record['category_id']!r} is not among the categories {list(labels)[:20]}"
            )
        owners.append(owner)
        classes.append(label)
        rles.append(_segmentation(record, images[owner], what))
    areas, boxes = measure_rles(rles, names)

    dropped: list[tuple[int, str]] = []
    replaced = 0
    for index, record in enumerate(records):
        area, box = int(areas[index]), boxes[index].tolist()
        if area == 0:
            dropped.append((ids[index], "the mask is empty"))
            continue
        given = _given_box(record.get("bbox"), box)
        replaced += given is None and record.get("bbox") is not None
        key = keys[index]
        images[owners[index]].objects.append(
            CocoObject(
                annotation_id=ids[index],
                label=classes[index],
                rle=rles[index],
                box=given or tuple(box),
                area=area,
                iscrowd=bool(record.get("iscrowd", 0)),
                source_id=key if isinstance(key, (int, str)) else None,
            )
        )
    if dropped:
        logger.warning("%s: %d of %d objects left out because their mask is empty, annotations %s%s", source,
                       len(dropped), len(records), [number for number, _ in dropped[:5]],
                       " and more" if len(dropped) > 5 else "")
    if replaced:
        logger.warning("%s: %d boxes do not fit their masks; the boxes of the masks are used", source, replaced)
    return dropped


def _segmentation(record: Mapping[str, Any], image: CocoImage, what: str) -> RLE:
    segmentation = record.get("segmentation")
    if segmentation is None or segmentation in ([], [[]], {}):
        found = "a box but no mask" if record.get("bbox") else "no mask"
        raise DataError(
            f"{what}: the object has {found} (segmentation {segmentation!r}), but masks are needed; "
            "draw the masks or predict them from the boxes first"
        )
    return decode_segmentation(segmentation, image.height, image.width, where=what, check=False)


def _given_box(bbox: Any, mask_box: Sequence[float]) -> Box | None:
    """The box x, y, width, height of the file as corners if it is sane and fits the mask, else None."""
    if not isinstance(bbox, list) or len(bbox) != 4:
        return None
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in bbox):
        return None
    x, y, width, height = bbox
    if width <= 0 or height <= 0:
        return None
    corners = (float(x), float(y), float(x + width), float(y + height))
    close = all(abs(a - b) <= BOX_TOLERANCE for a, b in zip(corners, mask_box, strict=True))
    return corners if close else None
