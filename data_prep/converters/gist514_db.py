"""GIST514-DB: leiomyomas (lmym) and stromal tumours (GIST) in endoscopic ultrasound; a test set of the paper."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_prep.frames import ImageFile
from data_prep.mask_shapes import CocoShape
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from data_prep.sources import find_one
from ultrasam.datasets.coco_images import load_json, need, records_of
from ultrasam.errors import DataError

INFO = DatasetInfo(
    slug="gist514_db",
    name="GIST514-DB",
    home="https://github.com/howardchina/query2",
    licence="CC BY-NC-SA 4.0",
    application="GIST",
    organ="gastrointestinal tract",
    categories=("lmym", "gist"),
    group_key="image (one per case)",
    official_split="split_0 of five; its val list is the test side here as in the paper",
    expected={"images": 514},
    # A lesion drawn in several polygons is one lesion.
    rules=MaskRules(split_components=False, crop_background=False),
    table1=(514, 505),
    view="endoscopic, radial probe",
    names=("*gist514*", "*usd514*", "*gist-514*"),
    access="Google Drive folder linked from the repository.",
)


def records(root: Path) -> Iterator[Record]:
    """Yield one record per image of both lists; one without annotations stays, as in the published evaluation."""
    seen: dict[str, str] = {}
    for side, split in (("train", "train"), ("val", "test")):
        source = find_one(root, f"{side}_anno_crop_split_0.json")
        content = load_json(source)
        names = _category_names(content, source)
        drawn = _by_image(content, source)
        for image in records_of(content, "images", source):
            name = str(need(image, "file_name", f"{source}: an image"))
            if seen.setdefault(name, side) != side or Path(name).name != name:
                raise DataError(f"{source}: plain file names, each in one of the two lists, were expected, found "
                                f"{name!r}; take both lists from one download")
            shapes = [_shape(item, names, source) for item in drawn.pop(need(image, "id", f"{source}: {name}"), [])]
            found = sorted({shape.category for shape in shapes})
            # File names are free text; output names are not.
            key = re.sub(r"[^\w.+-]+", "_", Path(name).stem, flags=re.ASCII)
            yield Record(key, ImageFile(source.parent.parent / "images" / name), tuple(shapes), group=key, split=split,
                         label=found[0] if len(found) == 1 else None, size=_size(image),
                         attributes={"official_split": f"split_0 {side}"})
        if drawn:
            raise DataError(f"{source}: annotations of images in the file were expected, found {len(drawn)} other "
                            f"image ids (first: {sorted(drawn, key=str)[:5]}); use the original file")


def _category_names(content: Mapping[str, Any], source: Path) -> dict[Any, str]:
    """Return the category by the file's id. Names decide, not numbers: swapped classes would go unnoticed."""
    names = {need(item, "id", f"{source}: a category"): str(item.get("name")).lower()
             for item in records_of(content, "categories", source)}
    if sorted(names.values()) != sorted(INFO.categories):
        raise DataError(f"{source}: the categories lmym and GIST were expected, found {list(names.values())}; "
                        "use the original file")
    return names


def _by_image(content: Mapping[str, Any], source: Path) -> dict[Any, list[dict[str, Any]]]:
    """Return the annotations by the id of their image."""
    found: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for item in records_of(content, "annotations", source):
        found[need(item, "image_id", f"{source}: annotation {item.get('id')}")].append(item)
    return found


def _shape(item: Mapping[str, Any], names: Mapping[Any, str], source: Path) -> CocoShape:
    """Return the mask of one annotation."""
    where = f"annotation {item.get('id')}"
    number = need(item, "category_id", f"{source}: {where}")
    if number not in names:
        raise DataError(f"{source}: {where}: a category of the file {names} was expected, found {number!r}; "
                        "use the original file")
    return CocoShape(source, names[number], item.get("segmentation"), where)


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the stated height and width, where there are any."""
    height, width = image.get("height"), image.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


CONVERTER = Converter(INFO, records)
