"""Reading converted datasets: their records of images and objects, whichever side they are on at present."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.splits import SPLITS
from ultrasam.datasets.coco_images import load_json, records_of
from ultrasam.errors import DataError

# Images that are on no side, because they show what is on the test side; kept, so that nothing is lost.
EXCLUDED = "excluded"
SIDES = (*SPLITS, EXCLUDED)

Json = dict[str, Any]


@dataclass
class ConvertedSet:
    """A converted dataset.

    Attributes:
        slug: its name.
        manifest: content of its ``manifest.json``.
        categories: names in the order of their ids 1, 2, ...
        images: image records, sorted by the name of the image; ``split`` is the side that the image is on now.
        objects: annotation records of each image, in the order of their ids.
    """

    slug: str
    manifest: Json
    categories: list[str]
    images: list[Json]
    objects: list[list[Json]]


def converted_slugs(root: Path) -> list[str]:
    """Return the names of the sets converted under ``root``, sorted."""
    return sorted(path.parent.name for path in root.glob("*/manifest.json")
                  if not path.parent.name.startswith(".") and (path.parent / "annotations").is_dir())


def annotation_file(slug: str, side: str, twin: str = "") -> str:
    """Return the path of an annotation file below the root; ``twin`` is "" or ".agnostic"."""
    return f"{slug}/annotations/{side}.{slug}{twin}.json"


def read_set(root: Path, slug: str) -> ConvertedSet:
    """Read a converted dataset.

    Raises:
        DataError: a file is damaged, or is not one that the conversion writes.
    """
    manifest_path = root / slug / "manifest.json"
    try:
        manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{manifest_path}: the manifest of a converted set was expected, found {error}; "
                        "convert the set again") from error
    categories: list[str] | None = None
    pairs: list[tuple[Json, list[Json]]] = []
    for side in SIDES:
        path = root / annotation_file(slug, side)
        if not path.is_file():
            continue
        document = load_json(path)
        names = _categories(records_of(document, "categories", path), path)
        if categories not in (None, names):
            raise DataError(f"{path}: the categories {categories} of the set's other files were expected, "
                            f"found {names}; convert the set again")
        categories = names
        pairs.extend(_images_and_objects(document, path, slug, side))
    if categories is None or not pairs:
        raise DataError(f"{root / slug / 'annotations'}: train, val or test.{slug}.json with an image was expected, "
                        "found none; convert the set again")
    pairs.sort(key=lambda pair: _key(pair[0]["file_name"]))
    _refuse_twice((image["file_name"] for image, _ in pairs), root / slug)
    return ConvertedSet(slug, manifest, categories, [image for image, _ in pairs], [items for _, items in pairs])


def _key(file_name: str) -> tuple[str, str]:
    """Return what the conversion sorts by: the name without suffix."""
    return file_name.rpartition(".")[0], file_name


def _categories(records: list[Json], path: Path) -> list[str]:
    """Return the names of the categories; DataError when their ids are not 1, 2, ..."""
    ids = [record.get("id") for record in records]
    if ids != list(range(1, len(records) + 1)):
        raise DataError(f"{path}: category ids 1, 2, ... were expected, found {ids[:10]}; convert the set again")
    return [str(record.get("name")) for record in records]


def _images_and_objects(document: Json, path: Path, slug: str, side: str) -> Iterable[tuple[Json, list[Json]]]:
    """Return the image records of a file, each with its annotations."""
    by_id: dict[Any, tuple[Json, list[Json]]] = {}
    for image in records_of(document, "images", path):
        missing = [key for key in ("id", "file_name", "group", "phash", "height", "width") if key not in image]
        if missing:
            raise DataError(f"{path}, image {image.get('id')!r}: the keys {missing} are missing; the set was converted "
                            "by another version or tool, convert it again (--reconvert)")
        if not str(image["file_name"]).startswith(f"{slug}/"):
            raise DataError(f"{path}: file names below {slug}/ were expected, found {image['file_name']!r}; "
                            "the folder of a converted set must keep its name")
        image["split"] = side
        by_id[image["id"]] = image, []
    for item in records_of(document, "annotations", path):
        if item.get("image_id") not in by_id:
            raise DataError(f"{path}, annotation {item.get('id')!r}: image_id {item.get('image_id')!r} is not among "
                            f"the {len(by_id)} images of the file; convert the set again")
        by_id[item["image_id"]][1].append(item)
    return by_id.values()


def _refuse_twice(names: Iterable[str], folder: Path) -> None:
    """Raise DataError when an image is there twice; the names are sorted."""
    earlier = ""
    for name in names:
        if name == earlier:
            raise DataError(f"{folder}: every image on one side was expected, found {name} twice; "
                            "convert the set again")
        earlier = name
