"""AUL, annotated ultrasound liver images: the liver, and its benign or malignant masses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.frames import ImageFile
from data_prep.listing import find_pair, numbered
from data_prep.mask_shapes import Polygons
from data_prep.records import Converter, DatasetInfo, MaskRules, MaskSource, OneFile, Record
from ultrasam.errors import DataError
from ultrasam.io.files import read_bytes

INFO = DatasetInfo(
    slug="aul",
    name="Annotated Ultrasound Liver images",
    home="https://zenodo.org/records/7272660",
    licence="CC BY 4.0",
    application="liver",
    organ="liver",
    categories=("liver", "liver_mass"),
    group_key="image (patients are not published)",
    expected={"images": 735, "masks": 1369},
    rules=MaskRules(split_components=False, fill_holes=True),
    table1=(735, 2102),
    view="liver",
    names=("*annotated*ultrasound*liver*", "*7272660*", "aul", "aul.*", "aul_*", "aul-*"),
    access="The Zenodo record has the archives Benign.zip, Malignant.zip and Normal.zip; keep them in one folder.",
)

_CLASSES = ("Benign", "Malignant", "Normal")
# Slips of the release, all among the malignant images: the liver of two is filed as their outline, one has none.
_LIVER_FILED_AS_OUTLINE = (229, 306)
_WITHOUT_LIVER = (374,)


@dataclass(frozen=True)
class PolygonFile(OneFile):
    """A JSON file that holds the vertices [[x, y], ...] of one polygon.

    Attributes:
        path: the file.
        category: name of the category inside.
    """

    category: str

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return the inside with its border as one bool height x width mask."""
        try:
            vertices = tuple((float(x), float(y)) for x, y in json.loads(read_bytes(self.path)))
        except (ValueError, TypeError) as error:
            raise DataError(f"{self.path}: one polygon [[x, y], [x, y], ...] was expected, found something else "
                            f"({error}); use the original file") from error
        return Polygons(self.path, ((self.category, vertices),)).read(height, width)


def records(root: Path) -> Iterator[Record]:
    """Yield one record per image. The outlines are the scanner's field of view, no object, and stay out."""
    for name in _CLASSES:
        images, drawn = find_pair(root, (f"{name}/image", "segmentation"))
        for number, image in numbered(images).items():
            key = f"{name.lower()}_{number:03d}"
            yield Record(key, ImageFile(image), tuple(_masks(name, number, drawn, image.stem)), group=key,
                         label=name.lower())


def _masks(name: str, number: int, drawn: Path, stem: str) -> Iterator[MaskSource]:
    """Yield the polygons of one image: its liver, and its mass unless it is normal."""
    liver = drawn / "liver" / f"{stem}.json"
    slip = name == "Malignant" and not liver.is_file()
    if slip and number in _LIVER_FILED_AS_OUTLINE:
        yield PolygonFile(drawn / "outline" / f"{stem}.json", "liver")
    elif not (slip and number in _WITHOUT_LIVER):
        yield PolygonFile(liver, "liver")
    mass = drawn / "mass" / f"{stem}.json"
    if name != "Normal":
        yield PolygonFile(mass, "liver_mass")
    elif mass.is_file():
        raise DataError(f"{mass}: a normal image without a mass was expected; check that the classes are not mixed up")


CONVERTER = Converter(INFO, records)
