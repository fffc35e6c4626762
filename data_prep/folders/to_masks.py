"""A COCO file as mask images: one PNG per image, and a table of what the values mean."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

import numpy as np

from data_prep.folders.fresh import fresh_folder
from data_prep.folders.labels import COLUMNS, TABLE
from ultrasam.datasets.coco import CocoCollection, CocoImage, CocoObject, read_coco
from ultrasam.errors import ConfigError, DataError
from ultrasam.geometry.rle import decode_mask
from ultrasam.io.files import write_atomic
from ultrasam.io.images import write_png

Kind = Literal["label", "instance", "binary"]

_LARGEST_VALUE = 65535


def write_masks(source: Path, out: Path, kind: Kind = "label", suffix: str = "_mask") -> tuple[int, int]:
    """Write the masks of a COCO file into a new folder, whole or not at all.

    Every image gets ``<name><suffix>.png``: values 1, 2, ... by category (``label``), by object of the image
    (``instance``), or 255 (``binary``), on 0. Where objects of different values overlap, the later ones go into
    ``<name><suffix>_1.png`` and so on, so that no pixel is lost. Files have 16 bits where a value above 255 is
    needed anywhere.

    Args:
        source: the COCO file; its images are not opened.
        out: folder to make.
        kind: what values mean.
        suffix: ending of the names of masks.

    Returns:
        the number of images, and of PNG files.

    Raises:
        DataError: the file is no sound COCO, two images have one name, or an image has too many objects.
        ConfigError: objects overlap and no suffix tells further files from other images, or ``out`` is in use.
    """
    collection = read_coco(source, source.parent)
    stems = _stems(collection)
    dtype = _value_type(collection, kind)
    rows: list[tuple[object, ...]] = []
    files = 0
    with fresh_folder(out) as folder:
        for image, stem in zip(collection.images, stems, strict=True):
            values = _values(image, kind)
            layers = _layers(image, values)
            if len(layers) > 1 and not suffix:
                raise ConfigError(f"{source}: objects of {image.file_name} overlap, so they need several mask files; "
                                  "give an ending of their names with --suffix _mask")
            for number, layer in enumerate(layers):
                name = f"{stem}{suffix}{f'_{number}' if number else ''}.png"
                write_png(folder / name, _paint(image, layer, dtype))
                rows += [(name, image.file_name, value, item.annotation_id, item.label + 1,
                          collection.classes[item.label], int(item.iscrowd), item.area) for item, value in layer]
            files += len(layers)
        write_atomic(folder / TABLE, _table(rows))
    return len(collection.images), files


def _stems(collection: CocoCollection) -> list[str]:
    """Return the path of every image without suffix, below the folder that is common to all."""
    places = [_inside(image.file_name) for image in collection.images]
    parents = [place.parent.as_posix() for place in places]
    common = PurePosixPath(os.path.commonpath(parents)) if parents else PurePosixPath()
    stems = [place.relative_to(common).with_suffix("").as_posix() for place in places]
    seen: dict[str, str] = {}
    for stem, image in zip(stems, collection.images, strict=True):
        # File systems of Windows and macOS take Ab and aB for one name.
        if stem.lower() in seen:
            raise DataError(f"{collection.source}: images of different names were expected, found "
                            f"{seen[stem.lower()]!r} and {image.file_name!r}, whose masks would be one file; "
                            "rename one of them")
        seen[stem.lower()] = image.file_name
    return stems


def _inside(name: str) -> PurePosixPath:
    """Return a file name as a path that leads below a folder."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if PureWindowsPath(name).drive:
        parts = parts[1:]
    kept = [part for part in parts if part not in ("/", "//", ".", "..")]
    return PurePosixPath(*kept) if kept else PurePosixPath("image")


def _value_type(collection: CocoCollection, kind: Kind) -> type[np.uint8] | type[np.uint16]:
    """Return the type of all masks, so that a set is uniform."""
    if kind == "binary":
        return np.uint8
    largest = len(collection.classes)
    if kind == "instance":
        largest = max((len(image.objects) for image in collection.images), default=0)
    if largest > _LARGEST_VALUE:
        raise DataError(f"{collection.source}: at most {_LARGEST_VALUE} values fit into a PNG, found {largest}")
    return np.uint16 if largest > 255 else np.uint8


def _values(image: CocoImage, kind: Kind) -> list[int]:
    """Return the value of every object of an image."""
    if kind == "binary":
        return [255] * len(image.objects)
    if kind == "label":
        return [item.label + 1 for item in image.objects]
    return list(range(1, len(image.objects) + 1))


def _layers(image: CocoImage, values: Sequence[int]) -> list[list[tuple[CocoObject, int]]]:
    """Return the objects in as few files as the order allows, none of which has two values at one pixel."""
    layers: list[tuple[np.ndarray, list[tuple[CocoObject, int]]]] = []
    for item, value in zip(image.objects, values, strict=True):
        mask = decode_mask(item.rle)
        for painted, members in layers:
            if not np.isin(painted[mask], (0, value)).all():
                continue
            painted[mask] = value
            members.append((item, value))
            break
        else:
            painted = np.zeros((image.height, image.width), np.uint16)
            painted[mask] = value
            layers.append((painted, [(item, value)]))
    return [members for _, members in layers] or [[]]


def _paint(image: CocoImage, layer: Sequence[tuple[CocoObject, int]], dtype: type[np.generic]) -> np.ndarray:
    """Return the values H x W of one mask file."""
    painted = np.zeros((image.height, image.width), dtype)
    for item, value in layer:
        painted[decode_mask(item.rle)] = value
    return painted


def _table(rows: Sequence[tuple[object, ...]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8")
