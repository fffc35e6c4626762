"""UBPD: the brachial plexus and what surrounds it, as LabelMe polygons with Chinese names."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.frames import ImageFile
from data_prep.mask_shapes import Polygons, Vertices
from data_prep.records import Converter, DatasetInfo, Record
from ultrasam.errors import DataError
from ultrasam.io.files import read_bytes

_PINYIN = {"dongmai": "artery", "jingmai": "vein", "jirouzuzhi": "muscle", "shenjing": "nerve", "zhifang": "fat",
           "jizhu": "spine"}

INFO = DatasetInfo(
    slug="ubpd",
    name="UBPD",
    home="https://ubpd.worldwidetracing.com:9443/",
    licence="as stated on the home page",
    application="plexus",
    organ="brachial plexus",
    view="transverse",
    categories=tuple(_PINYIN.values()),
    group_key="patient (file name before the first underscore)",
    table1=(939, 4416),
    names=("*ubpd*", "*upbd*"),
    access="the files come from the home page, after a registration",
    unsure="how names and labels are written",
)


@dataclass(frozen=True)
class LabelMe:
    """The polygons of a LabelMe file, each an object of its own; they may overlap.

    Attributes:
        path: the JSON file, in UTF-8 or GBK.
    """

    path: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        """The one file read."""
        return (self.path,)

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return one bool height x width mask per polygon, in the order of the file."""
        content = _content(self.path)
        size = (content.get("imageHeight") or height, content.get("imageWidth") or width)
        if size != (height, width):
            raise DataError(f"{self.path}: an annotation of an image of {width} x {height} pixels (width x height) was "
                            f"expected, found {size[1]} x {size[0]}; check that the two files belong together")
        shapes = tuple(_polygon(shape, self.path) for shape in content["shapes"])
        return Polygons(self.path, shapes).read(height, width)


def _content(path: Path) -> dict[str, Any]:
    """Return the content of a file in UTF-8 or, as Chinese Windows writes it, GBK."""
    data = read_bytes(path)
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            content = json.loads(data.decode(encoding))
        except (UnicodeDecodeError, json.JSONDecodeError):
            continue
        if isinstance(content, dict) and isinstance(content.get("shapes"), list):
            return content
    raise DataError(f"{path}: a LabelMe file with shapes, in UTF-8 or GBK, was expected, found another content; "
                    "get it again")


def _polygon(shape: Any, path: Path) -> tuple[str, Vertices]:
    """Return category and vertices of a LabelMe shape."""
    try:
        label, kind = str(shape["label"]).strip().lower(), shape.get("shape_type") or "polygon"
        vertices = tuple((float(x), float(y)) for x, y in shape["points"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: shapes with a label and points were expected, found {str(shape)[:80]}") from error
    if kind != "polygon" or label not in _PINYIN:
        raise DataError(f"{path}: polygons called {', '.join(_PINYIN)} were expected, found a {kind} called "
                        f"{shape['label']!r}")
    return _PINYIN[label], vertices


def records(root: Path) -> Iterator[Record]:
    """Yield one record per annotation; images without one belong to the hidden test part and are left out."""
    annotations = {path.stem: path for path in _files(root, "json")}
    images = {path.stem: path for path in _files(root, "jpg")}
    for stem, path in sorted(annotations.items()):
        beside = path.parent.with_name("JPEGImages") / f"{stem}.jpg"
        yield Record(
            key=re.sub(r"[^A-Za-z0-9_.+-]", "-", stem),
            image=ImageFile(images.get(stem, beside)),
            masks=(LabelMe(path),),
            group=stem.split("_")[0],
        )
    unlabelled = len(images.keys() - annotations.keys())
    if unlabelled:
        print(f"{INFO.slug}: {unlabelled} images have no annotation and are left out", file=sys.stderr)


def _files(root: Path, ending: str) -> list[Path]:
    """Return the files of an ending in the two folders; DataError for two of one name."""
    folder = {"json": "json_train", "jpg": "JPEGImages"}[ending]
    paths = sorted(path for path in root.rglob(f"{folder}/[!.]*.{ending}") if "__MACOSX" not in path.parts)
    if len({path.stem for path in paths}) != len(paths):
        raise DataError(f"{root}: one folder {folder} was expected, found several with the same names; name one")
    return paths


CONVERTER = Converter(INFO, records)
