"""What an annotation file holds, once it is read and checked."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ultrasam.datasets.coco_ids import IdValue
from ultrasam.geometry.rle import RLE

Box = tuple[float, float, float, float]


@dataclass(slots=True)
class CocoObject:
    """One annotated object.

    Attributes:
        annotation_id: unique int from 1.
        label: index into the classes of the collection, from 0.
        rle: compressed mask of the size of the image, ``{"size": [h, w], "counts": str}``.
        box: half-open x1, y1, x2, y2 in pixels.
        area: foreground pixels of the mask.
        iscrowd: the annotation covers a group; such objects are not for training.
        source_id: the id in the file, which may be text, zero or shared.
    """

    annotation_id: int
    label: int
    rle: RLE
    box: Box
    area: int
    iscrowd: bool = False
    source_id: IdValue | None = None


@dataclass(slots=True)
class CocoImage:
    """One image and its objects.

    Attributes:
        id: unique int.
        file_name: as in the file.
        root: folder that relative file names start from.
        height: pixels.
        width: pixels.
        dataset: name of the data set.
        group: patient or video; never to be divided between splits.
        objects: may be empty, the image is then a negative.
        extra: every other key of the image record.
    """

    id: int
    file_name: str
    root: Path
    height: int
    width: int
    dataset: str
    group: str
    objects: list[CocoObject]
    extra: dict[str, Any]

    @property
    def path(self) -> Path:
        """Where the image is; it is not looked for before it is opened (see :func:`check_files`)."""
        # Made when asked for: the paths of a large file take a hundred megabytes and seconds.
        path = self.root / self.file_name
        return Path(os.path.normpath(path)) if ".." in self.file_name else path


@dataclass
class CocoCollection:
    """The content of one annotation file.

    Attributes:
        source: the file.
        classes: names in the order of the labels.
        images: in the order of the file.
        dropped: (annotation id, reason) of every object left out because its mask is empty.
    """

    source: Path
    classes: list[str]
    images: list[CocoImage]
    dropped: list[tuple[int, str]] = field(default_factory=list)


def check_files(collection: CocoCollection) -> list[Path]:
    """Image files of a collection that do not exist, in its order."""
    return [image.path for image in collection.images if not image.path.is_file()]
