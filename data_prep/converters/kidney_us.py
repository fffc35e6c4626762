"""Open Kidney Ultrasound (kidneyUS): the capsule of native and transplanted kidneys, as drawn by the first rater."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.frames import ImageFile
from data_prep.listing import files_below
from data_prep.mask_shapes import Polygons, Vertices
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from data_prep.sources import find_one
from data_prep.tables import csv_rows
from ultrasam.errors import DataError

INFO = DatasetInfo(
    slug="kidney_us",
    name="Open Kidney Ultrasound (kidneyUS)",
    home="https://github.com/rsingla92/kidneyUS",
    licence="CC BY-NC-SA",
    application="kidney",
    organ="kidney",
    view="longitudinal, transverse and other (per image)",
    categories=("kidney",),
    group_key="number at the start of the file name",
    expected={"images": 486, "masks": 486, "groups": 469},
    # Images without a capsule are of too poor a quality to be annotated.
    rules=MaskRules(split_components=False, fill_holes=True, drop_empty=True),
    table1=(487, 487),
    names=("*kidneyus*", "*kidney?us*", "*open?kidney*"),
    access="the labels are in the repository; the images come after a registration that is linked there",
)
_TABLE = "reviewed_labels_1.csv"
_COLUMNS = ("filename", "file_attributes", "region_shape_attributes", "region_attributes")
# A rectangle of 517 x 11 pixels above the picture; the second rater drew no capsule, and quality is Poor.
_SLIP = "169_IM-0885-0035_anon.png"


def records(root: Path) -> Iterator[Record]:
    """Yield one record per image of the table, without masks where it has no capsule."""
    table = find_one(root, _TABLE)
    capsules, attributes = _read(table)
    images = _images(root)
    if not images.keys() & capsules.keys():
        raise DataError(f"{root}: {len(capsules)} images such as {next(iter(capsules), '<name>.png')} were expected "
                        f"beside the labels, found none of them; register at {INFO.home}, and unpack the images into "
                        "this folder")
    for name, stated in attributes.items():
        shapes = tuple(("kidney", vertices) for vertices in capsules.get(name, ()))
        yield Record(
            key=Path(name).stem,
            image=ImageFile(images.get(name, root / name)),
            masks=(Polygons(table, shapes, where=name),) if shapes else (),
            group=name.split("_")[0],
            attributes={"view": str(stated.get("View", "")).lower(), "quality": str(stated.get("Quality", "")).lower()},
        )


def _images(root: Path) -> dict[str, Path]:
    """Return the images by file name; the masks of the raters, which are not used, have the same names."""
    found: dict[str, Path] = {}
    for path in files_below(root, "*_anon.png"):
        if any(folder.startswith("reviewed_masks") for folder in path.relative_to(root).parts[:-1]):
            continue
        if path.name in found:
            raise DataError(f"{path}: one image of this name was expected, found also {found[path.name]}; keep one "
                            "release of the images")
        found[path.name] = path
    return found


def _read(table: Path) -> tuple[dict[str, list[Vertices]], dict[str, dict[str, Any]]]:
    """Return the capsules and the attributes by file name, both from a table of the VGG annotator."""
    capsules: dict[str, list[Vertices]] = {}
    attributes: dict[str, dict[str, Any]] = {}
    for line, row in csv_rows(table, _COLUMNS):
        name, where = row["filename"], f"{table}: line {line}"
        try:
            stated, drawn, region = (json.loads(row[column]) for column in _COLUMNS[1:])
            attributes[name] = stated
            slip = name == _SLIP and drawn.get("name") == "rect"
            if region.get("Anatomy") == "Capsule" and not slip:
                capsules.setdefault(name, []).append(_polygon(drawn, f"{where}: {name}"))
        except (json.JSONDecodeError, KeyError, AttributeError, TypeError, ValueError) as error:
            raise DataError(f"{where}: a row of the VGG Image Annotator was expected, found: {error!r}; "
                            "get the table again") from error
    return capsules, attributes


def _polygon(shape: dict[str, Any], where: str) -> Vertices:
    """Return the vertices of a shape; DataError when it is no polygon."""
    if shape.get("name") != "polygon" or len(shape["all_points_x"]) != len(shape["all_points_y"]):
        raise DataError(f"{where}: a polygon with as many x as y was expected, found {shape.get('name')!r}")
    return tuple((float(x), float(y)) for x, y in zip(shape["all_points_x"], shape["all_points_y"], strict=True))


CONVERTER = Converter(INFO, records)
