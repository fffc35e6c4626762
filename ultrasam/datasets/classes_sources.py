"""Classes of images from a COCO file, from folders named after them, or from a CSV table."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrasam.datasets.classes_table import group_of, needed_cell, read_table
from ultrasam.datasets.coco import CocoImage, read_coco
from ultrasam.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class LabelledImage:
    """An image and its class.

    Attributes:
        path: of the image.
        image_id: number in its source.
        label: name of the class.
        group: patient or video.
        dataset: name of the data set.
        application: of the data set, may be empty.
    """

    path: Path
    image_id: int
    label: str
    group: str
    dataset: str
    application: str = ""


@dataclass(frozen=True)
class LabelSource:
    """What a source of classes holds.

    Attributes:
        images: in the order of the source.
        classes: names that the source lists, in its order; may hold some that no image has.
    """

    images: list[LabelledImage]
    classes: list[str]


def label_of(image: CocoImage, names: Sequence[str], key: str) -> str | None:
    """Return the class of an image record: its value of ``key``, else the one category that all its objects have."""
    stated = image.extra.get(key)
    if stated is not None and str(stated):
        return str(stated)
    found = {names[item.label] for item in image.objects if not item.iscrowd}
    return found.pop() if len(found) == 1 else None


def labels_from_coco(path: Path, root: Path, key: str, unlabelled: str) -> LabelSource:
    """Read classes from a COCO file: ``key`` of the image records, or the category of their objects.

    Args:
        path: the file.
        root: folder that file names start from.
        key: of the image records.
        unlabelled: "error" refuses images without a class, "skip" leaves them out with a warning.

    Raises:
        DataError: the file cannot be used, or an image has no class.
    """
    collection = read_coco(path, root)
    images, without = [], []
    for image in collection.images:
        label = label_of(image, collection.classes, key)
        if label is None:
            without.append(image.file_name)
            continue
        application = str(image.extra.get("application") or "")
        images.append(LabelledImage(image.path, image.id, label, image.group, image.dataset, application))
    if without and unlabelled == "error":
        raise DataError(
            f"{path}: {len(without)} images have neither {key!r} nor objects of one category (first: {without[0]}); "
            "add their classes, or set unlabelled='skip'"
        )
    if without:
        logger.warning("%s: left out %d of %d images, which have no class", path, len(without), len(collection.images))
    found = {image.label for image in images}
    # Categories that no class of an image names (such as "lesion") are none of its classes.
    listed = collection.classes if found & set(collection.classes) else []
    return LabelSource(images, [*listed, *sorted(found - set(listed))])


def labels_from_folders(root: Path, group_pattern: str | None) -> LabelSource:
    """Read images from folders named after their class, and below.

    Raises:
        DataError: there is no such folder, a picture lies beside the class folders, or there is none at all.
    """
    if not root.is_dir():
        raise DataError(f"{root} does not exist or is no folder; give the folder that holds one folder for each class")
    beside = [path.name for path in sorted(root.iterdir()) if path.is_file() and path.suffix.lower() in SUFFIXES]
    if beside:
        raise DataError(f"{root} holds {beside[0]} beside its class folders, so its class is unknown; move it into one")
    images: list[LabelledImage] = []
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                name = path.relative_to(root).as_posix()
                group = group_of(path.name, group_pattern) if group_pattern else name
                images.append(LabelledImage(path, len(images) + 1, folder.name, group, root.name))
    if not images:
        raise DataError(f"{root} holds no image in a class folder ({', '.join(SUFFIXES)}); check the path")
    return LabelSource(images, [folder.name for folder in folders])


def labels_from_table(
    path: Path, root: Path, file_column: str, class_column: str, group_column: str | None, group_pattern: str | None
) -> LabelSource:
    """Read classes from a CSV table with one line for each image.

    Raises:
        DataError: the table cannot be used, a cell is empty, or an image is in it twice.
    """
    rows = read_table(path, [file_column, class_column, *([group_column] if group_column else [])])
    images: list[LabelledImage] = []
    lines: dict[str, int] = {}
    for row in rows:
        name, label = needed_cell(row, file_column, path), needed_cell(row, class_column, path)
        if name in lines:
            raise DataError(f"{path}, line {row.line}: {name} stands in line {lines[name]} already; delete one of them")
        lines[name] = row.line
        group = needed_cell(row, group_column, path) if group_column else group_of(Path(name).name, group_pattern)
        images.append(LabelledImage(root / name, len(images) + 1, label, group, path.stem))
    return LabelSource(images, sorted({image.label for image in images}))


def ordered_classes(source: LabelSource, wanted: Sequence[str] | None, where: str) -> list[str]:
    """Return the classes in the order of the labels.

    Args:
        source: images and classes.
        wanted: names in the order wanted, may hold some that no image has; None takes those of the source.
        where: the source, for messages.

    Raises:
        ConfigError: an image has a class that is not wanted.
    """
    if wanted is None:
        return source.classes
    strange = sorted({image.label for image in source.images} - set(wanted))
    if isinstance(wanted, str) or strange:
        raise ConfigError(
            f"{where} has images of the class {strange[0] if strange else wanted!r}, which is none of {list(wanted)}; "
            "correct the classes of the configuration"
        )
    return list(wanted)


def class_counts(labels: Sequence[int], classes: int) -> list[int]:
    """Return how often each label 0, 1, ... occurs."""
    counted: Counter[Any] = Counter(labels)
    return [counted[label] for label in range(classes)]
