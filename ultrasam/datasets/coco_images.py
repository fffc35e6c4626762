"""The outer parts of a COCO file: the JSON itself, its lists of records, and the images."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ultrasam.datasets.coco_ids import IdValue, dense_ids, id_key
from ultrasam.datasets.coco_types import CocoImage
from ultrasam.errors import DataError
from ultrasam.io.files import read_bytes

logger = logging.getLogger(__name__)

_MAX_SIDE = 2**31
_IMAGE_KEYS = frozenset(("id", "file_name", "width", "height", "dataset", "group"))


def load_json(source: Path) -> dict[str, Any]:
    """Parse a JSON file whose outermost value is an object.

    Raises:
        DataError: the file cannot be read or is not such JSON; the message gives line and column.
    """
    try:
        # The bytes are not kept while the text is parsed: a merged file has hundreds of megabytes.
        content = json.loads(read_bytes(source).decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{source} is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}; "
            "export or copy the file again"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is not UTF-8 text (byte {error.start}); save the JSON as UTF-8") from error
    except (RecursionError, ValueError) as error:
        # Nesting without end, or an integer of thousands of digits.
        raise DataError(f"{source} is not a sound COCO file ({error}); export it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{source}: a COCO file is one JSON object, found {type(content).__name__}")
    return content


def records_of(content: Mapping[str, Any], key: str, source: Path) -> list[dict[str, Any]]:
    """The list of JSON objects under ``key``.

    Raises:
        DataError: it is missing or something else.
    """
    if key not in content:
        raise DataError(
            f"{source}: the key {key!r} is missing, found {sorted(content)[:10]}; give a COCO instances file"
        )
    records = content[key]
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DataError(f"{source}: {key!r} must be a list of JSON objects")
    return records


def need(record: Mapping[str, Any], key: str, what: str) -> Any:
    """The value under a key that must be there and not null.

    Raises:
        DataError: it is not; ``what`` names the record.
    """
    if record.get(key) is None:
        raise DataError(f"{what}: the key {key!r} is missing, found {sorted(record)}")
    return record[key]


def read_images(
    records: Sequence[Mapping[str, Any]], source: Path, root: Path
) -> tuple[list[CocoImage], dict[IdValue, int]]:
    """Read the image records.

    Args:
        records: as found in the file.
        source: the file, for messages and the default name of the data set.
        root: folder that relative file names start from.

    Returns:
        the images in the order of the file, and the position of each by its id in the file.

    Raises:
        DataError: a key is missing or wrong, or an id is used twice.
    """
    by_id = _positions(records, source)
    ids, renumbered = dense_ids(list(by_id), lowest=0)
    if renumbered:
        logger.warning("%s: image ids are not plain integers; numbered anew from 1", source)
    dataset = _dataset_from_name(source)
    images = []
    # Images of a set or a group have one text for it, instead of an equal one each.
    texts: dict[str, str] = {}
    for key, number, record in zip(by_id, ids, records, strict=True):
        image = _image(record, number, root, dataset, f"{source}, image {key!r}")
        image.dataset = texts.setdefault(image.dataset, image.dataset)
        image.group = texts.setdefault(image.group, image.group)
        if renumbered:
            image.extra["source_id"] = key
        images.append(image)
    return images, by_id


def _positions(records: Sequence[Mapping[str, Any]], source: Path) -> dict[IdValue, int]:
    by_id: dict[IdValue, int] = {}
    for index, record in enumerate(records):
        what = f"{source}, image number {index + 1}"
        key = id_key(need(record, "id", what), what)
        if key in by_id:
            raise DataError(
                f"{source}: image id {key!r} is used by {records[by_id[key]].get('file_name')!r} and by "
                f"{record.get('file_name')!r}; give every image an id of its own"
            )
        by_id[key] = index
    return by_id


def _image(record: Mapping[str, Any], number: int, root: Path, default_dataset: str, what: str) -> CocoImage:
    name = need(record, "file_name", what)
    if not isinstance(name, str) or not name or "\0" in name:
        raise DataError(f"{what}: file_name must be a path, found {name!r}")
    dataset = str(record.get("dataset") or default_dataset)
    return CocoImage(
        id=number,
        file_name=name,
        root=root,
        height=_pixels(record, "height", what),
        width=_pixels(record, "width", what),
        dataset=dataset,
        # Without a patient or video every image is a group of its own.
        group=str(record.get("group") or f"{dataset}/{name}"),
        objects=[],
        extra={key: value for key, value in record.items() if key not in _IMAGE_KEYS},
    )


def _dataset_from_name(source: Path) -> str:
    words = source.stem.split(".")
    if len(words) > 1 and words[0] in ("train", "val", "test"):
        words = words[1:]
    if len(words) > 1 and words[-1] == "agnostic":
        words = words[:-1]
    return ".".join(words)


def _pixels(record: Mapping[str, Any], key: str, what: str) -> int:
    value = need(record, key, what)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # NaN fails the comparison, fractions the remainder.
    if not is_number or not 1 <= value < _MAX_SIDE or value % 1:
        raise DataError(f"{what}: {key} must be a whole number of pixels from 1, found {value!r}")
    return int(value)
