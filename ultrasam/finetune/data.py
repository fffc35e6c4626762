"""The COCO files of a folder: which train, which choose, which test."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ultrasam.errors import DataError

SPLITS = ("train", "val", "test")
# Where the images' file names may start from, below the folder that holds the annotations or above it.
IMAGE_FOLDERS = ("", "images", "..", "../..", "../images")


@dataclass(frozen=True)
class DataFiles:
    """The annotation files of a folder.

    Attributes:
        root: folder that the images' file names start from.
        train: file to train with, absolute.
        val: file to choose by, or None.
        test: file to test with, or None.
    """

    root: Path
    train: Path
    val: Path | None
    test: Path | None

    def relative(self, path: Path) -> str:
        """Return an annotation file as a configuration names it below ``root``."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)


def find_data(folder: str | Path) -> DataFiles:
    """Find the annotation files of a folder.

    They are called ``train.json``, ``train.agnostic.json`` or ``train.NAME.agnostic.json`` (as ``data_prep`` writes
    them), and so on for ``val`` and ``test``; in the folder or in its ``annotations``. Of several, the one with one
    class ("agnostic") is taken.

    Raises:
        DataError: there is no such folder, no training file, more than one, or its images are not found.
    """
    root = Path(folder).expanduser().resolve()
    if not root.is_dir():
        raise DataError(f"the data folder {folder} does not exist or is no folder; check the path")
    for place in (root, root / "annotations"):
        found = {split: _file_of(place, split) for split in SPLITS}
        train = found["train"]
        if train is not None:
            return DataFiles(_image_root(train), train, found["val"], found["test"])
    raise DataError(
        f"{root} holds no train.json, train.agnostic.json or train.NAME.agnostic.json, nor does "
        f"{root / 'annotations'}; "
        "name the COCO files so, or make them with python -m data_prep from-masks"
    )


def _file_of(place: Path, split: str) -> Path | None:
    if (place / f"{split}.json").is_file():
        return place / f"{split}.json"
    agnostic = sorted(place.glob(f"{split}*.agnostic.json"))
    others = [path for path in sorted(place.glob(f"{split}.*.json")) if path not in agnostic]
    chosen = agnostic or others
    if len(chosen) > 1:
        names = ", ".join(path.name for path in chosen)
        raise DataError(
            f"{place} holds more than one file of the split {split!r} ({names}); name the folder of one set"
        )
    return chosen[0] if chosen else None


def _image_root(annotations: Path) -> Path:
    """Return the folder from which the first image's file name leads to a file."""
    try:
        images = json.loads(annotations.read_text(encoding="utf-8"))["images"]
        name = str(images[0]["file_name"])
    except (OSError, UnicodeDecodeError, ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(f"{annotations} is no COCO file with images ({error}); write it again") from error
    for folder in IMAGE_FOLDERS:
        root = (annotations.parent / folder).resolve()
        if (root / name).is_file():
            return root
    raise DataError(
        f"the image {name!r} of {annotations} is neither in {annotations.parent} nor in its folder images, nor up to "
        "two folders above; write file names relative to one of these"
    )
