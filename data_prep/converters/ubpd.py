"""UBPD: the brachial plexus and what surrounds it, as LabelMe polygons with Chinese names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.frames import ImageFile
from data_prep.listing import files_below
from data_prep.mask_shapes import Polygons, Vertices
from data_prep.records import Converter, DatasetInfo, MaskRules, OneFile, Record
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
    # Images without an annotation belong to the hidden test part.
    rules=MaskRules(drop_empty=True),
    table1=(939, 4416),
    names=("*ubpd*", "*upbd*"),
    access="the files come from the home page, after a registration",
    unsure="how names and labels are written",
)


@dataclass(frozen=True)
class LabelMe(OneFile):
    """The polygons of a LabelMe file, each an object of its own; they may overlap.

    Attributes:
        path: the JSON file, in UTF-8 or GBK.
    """

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
    """Yield one record per image or annotation."""
    annotations, images = _files(root, "json_train", ".json"), _files(root, "JPEGImages", ".jpg")
    for stem in sorted({*annotations, *images}):
        if stem in images:
            image = images[stem]
        else:
            image = annotations[stem].parent.with_name("JPEGImages") / f"{stem}.jpg"
        yield Record(
            key=re.sub(r"[^A-Za-z0-9_.+-]", "-", stem),
            image=ImageFile(image),
            masks=(LabelMe(annotations[stem]),) if stem in annotations else (),
            group=stem.split("_")[0],
        )


def _files(root: Path, folder: str, suffix: str) -> dict[str, Path]:
    """Return the files of the folders of a name by name without suffix; DataError for two of one name."""
    paths = files_below(root, f"{folder}/*{suffix}")
    found = {path.stem: path for path in paths}
    if len(found) != len(paths):
        raise DataError(f"{root}: one folder {folder} was expected, found several with the same names; name one")
    return found


CONVERTER = Converter(INFO, records)
