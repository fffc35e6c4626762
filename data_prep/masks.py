"""Reading raw masks into labelled boolean masks, and the rules that turn those into objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data_prep.records import MaskRules
from ultrasam.errors import DataError
from ultrasam.io.images import read_mask


@dataclass(frozen=True)
class BinaryMask:
    """A mask file that holds background 0 and one foreground value, 1 or 255.

    Attributes:
        path: the mask file.
        category: name of the category of its foreground.
    """

    path: Path
    category: str

    @property
    def paths(self) -> tuple[Path, ...]:
        """The one file read."""
        return (self.path,)

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return the foreground as one bool height x width mask; DataError for any third value."""
        values = _read_sized(self.path, height, width)
        found = np.unique(values)
        if not (np.isin(found, (0, 1)).all() or np.isin(found, (0, 255)).all()):
            raise DataError(
                f"{self.path}: a two-valued mask (0 and 1, or 0 and 255) was expected, "
                f"found the values {_shortened(found)}; the file may be re-encoded, use the original"
            )
        return [(self.category, values > 0)]


@dataclass(frozen=True)
class LabelMask:
    """A mask file whose values name categories; 0 is background.

    Attributes:
        path: the mask file.
        categories: value to category name.
    """

    path: Path
    categories: Mapping[int, str]

    @property
    def paths(self) -> tuple[Path, ...]:
        """The one file read."""
        return (self.path,)

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return one bool height x width mask per value present, by value; DataError for unknown values."""
        values = _read_sized(self.path, height, width)
        found = np.unique(values)
        unknown = np.setdiff1d(found, [0, *self.categories])
        if unknown.size:
            raise DataError(
                f"{self.path}: the values {sorted(self.categories)} were expected, "
                f"found also {_shortened(unknown)}; check that this is the original mask"
            )
        return [(self.categories[int(value)], values == value) for value in found if value != 0]


def _read_sized(path: Path, height: int, width: int) -> np.ndarray:
    """Return the mask's values (height x width); DataError when its size is not the image's."""
    values = read_mask(path)
    if values.shape != (height, width):
        found = " x ".join(str(side) for side in values.shape[::-1])
        raise DataError(
            f"{path}: the mask is {found} pixels (width x height) but its image is {width} x {height}; "
            "check that the two files belong together"
        )
    return values


def _shortened(values: np.ndarray, limit: int = 8) -> str:
    """Return the first values as text."""
    text = ", ".join(str(value) for value in values[:limit].tolist())
    return text if values.size <= limit else f"{text}, ... ({values.size} values)"


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Return the bool H x W mask with every background region that does not reach the border set."""
    background = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    # Background is 4-connected where foreground is 8-connected, else a diagonal line would leak.
    _, labels = cv2.connectedComponents(background, connectivity=4)
    return np.asarray(labels != labels[0, 0])[1:-1, 1:-1]


def components(mask: np.ndarray) -> list[np.ndarray]:
    """Return the 8-connected components of a bool H x W mask, by first pixel in row order."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    parts = [labels == label for label in range(1, count)]
    return sorted(parts, key=lambda part: int(part.argmax()))


def apply_rules(mask: np.ndarray, rules: MaskRules) -> tuple[list[np.ndarray], dict[str, int]]:
    """Return the objects of one labelled mask and what the rules changed.

    Args:
        mask: bool H x W.
        rules: the dataset's rules.

    Returns:
        bool H x W masks, one per object, and the counts ``pixels_filled`` and ``components_dropped``.
    """
    solid = fill_holes(mask) if rules.fill_holes else mask
    changes = {"pixels_filled": int(solid.sum()) - int(mask.sum()), "components_dropped": 0}
    parts = components(solid)
    kept = [part for part in parts if int(part.sum()) >= rules.min_area]
    changes["components_dropped"] = len(parts) - len(kept)
    if rules.split_components or len(kept) < 2:
        return kept, changes
    return [np.logical_or.reduce(kept)], changes
