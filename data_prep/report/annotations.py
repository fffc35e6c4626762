"""Reading of the annotation files what a report needs: sizes and names, but not the masks."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ultrasam.errors import DataError


class ImageEntry(NamedTuple):
    """An image record without what the report does not use."""

    id: int
    file_name: str
    width: int
    height: int
    dataset: str
    group: str


class ObjectEntry(NamedTuple):
    """An annotation without its mask; ``area`` in pixels."""

    image_id: int
    category_id: int
    area: float


@dataclass(frozen=True)
class Outline:
    """A COCO file without its masks."""

    images: list[ImageEntry]
    objects: list[ObjectEntry]
    categories: dict[int, str]


def read_outline(path: Path) -> Outline:
    """Read images, areas and categories of a COCO file; masks are dropped while it is parsed.

    So the memory needed is that of the text and of these few numbers, also for 280,000 masks.

    Raises:
        DataError: the file is not a COCO file as ``convert`` writes it.
    """
    document = _parse(path, _outlined)
    return Outline(
        images=[item for item in document["images"] if isinstance(item, ImageEntry)],
        objects=[item for item in document["annotations"] if isinstance(item, ObjectEntry)],
        categories={item["id"]: item["name"] for item in document["categories"]},
    )


def read_masks(path: Path, image_ids: Collection[int]) -> dict[int, list[tuple[int, Any]]]:
    """Return category id and ``segmentation`` of every object of some images, by image id.

    Raises:
        DataError: as `read_outline`.
    """
    wanted = set(image_ids)

    def chosen(item: dict[str, Any]) -> Any:
        if "image_id" in item:
            return item if item["image_id"] in wanted else None
        return None if "file_name" in item else item

    found: dict[int, list[tuple[int, Any]]] = {number: [] for number in wanted}
    for item in _parse(path, chosen)["annotations"]:
        if item is not None:
            found[item["image_id"]].append((item["category_id"], item["segmentation"]))
    return found


def _outlined(item: dict[str, Any]) -> Any:
    """Return the short form of a JSON object."""
    if "counts" in item:
        return None
    if "image_id" in item:
        return ObjectEntry(item["image_id"], item["category_id"], item["area"])
    if "file_name" in item:
        return ImageEntry(item["id"], item["file_name"], item["width"], item["height"],
                          item.get("dataset", ""), item.get("group", ""))
    return item


def _parse(path: Path, hook: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """Parse a COCO file through a hook; DataError when it is not one."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"), object_hook=hook)
        lists = [document[name] for name in ("images", "annotations", "categories")]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{path}: a COCO file as convert writes it was expected, found: {error!r}; "
                        "convert the set again") from error
    if not all(isinstance(part, list) for part in lists):
        raise DataError(f"{path}: lists of images, annotations and categories were expected, found other values; "
                        "convert the set again")
    return dict(document)
