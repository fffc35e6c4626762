"""Polygons of annotation files in XML: CVAT for images, and the thyroid marks of CIMALAB (DDTI's originals)."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from data_prep.mask_shapes import Vertices
from ultrasam.errors import DataError
from ultrasam.io.files import read_bytes


def read_cvat(path: Path) -> dict[str, list[tuple[str, Vertices]]]:
    """Return label and vertices (x, y) in pixels of every polygon, by image name, of a "CVAT for images" file.

    Boxes become polygons of four vertices. An image without shapes has an empty list.

    Raises:
        DataError: no such file, unsafe or damaged XML, no image in it, or a shape that is neither.
    """
    root = _parse(path)
    found: dict[str, list[tuple[str, Vertices]]] = {}
    for image in root.iter("image"):
        name = image.get("name")
        if name is None or name in found:
            raise DataError(f"{path}: images with one name each were expected, found {name!r}")
        found[name] = [_cvat_shape(shape, path, name) for shape in image if shape.tag != "tag"]
    if not found:
        raise DataError(f"{path}: a CVAT file with <image> elements was expected, found <{root.tag}>")
    return found


def read_thyroid_marks(path: Path) -> dict[str, list[Vertices]]:
    """Return the outlines (x, y) in pixels by image number of a CIMALAB case: ``<mark>`` with ``<image>``, ``<svg>``.

    Raises:
        DataError: no such file, unsafe or damaged XML, or a mark that cannot be read.
    """
    found: dict[str, list[Vertices]] = {}
    for mark in _parse(path).iter("mark"):
        number, text = mark.findtext("image", "").strip(), mark.findtext("svg", "").strip()
        outlines = found.setdefault(number, [])
        try:
            shapes = json.loads(text) if text else []
            outlines += [
                tuple((float(point["x"]), float(point["y"])) for point in shape["points"]) for shape in shapes
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: image {number}: outlines as JSON points x, y were expected ({error})") from error
    return found


def _cvat_shape(shape: Element, path: Path, name: str) -> tuple[str, Vertices]:
    label = shape.get("label", "")
    try:
        if shape.tag == "polygon":
            pairs = [pair.split(",") for pair in shape.get("points", "").split(";")]
            return label, tuple((float(x), float(y)) for x, y in pairs)
        if shape.tag == "box":
            x1, y1, x2, y2 = (float(shape.get(side, "")) for side in ("xtl", "ytl", "xbr", "ybr"))
            return label, ((x1, y1), (x2, y1), (x2, y2), (x1, y2))
    except ValueError as error:
        raise DataError(f"{path}: {name}: a {shape.tag} with numbers was expected ({error})") from error
    raise DataError(f"{path}: {name}: polygons and boxes were expected, found <{shape.tag}>; convert it to a polygon")


def _parse(path: Path) -> Element:
    """Return the root of an XML file without following entities or references."""
    try:
        root: Element = fromstring(read_bytes(path))
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise DataError(f"{path}: readable XML without entities was expected, found: {error}") from error
    return root
