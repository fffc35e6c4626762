"""Mask files of a user: numbers that stand for categories or for objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.frames import ImageFile
from data_prep.records import MaskSource
from ultrasam.errors import DataError
from ultrasam.io.images import read_mask

OBJECT = "object"


@dataclass(frozen=True)
class LinkedImage:
    """An image that the pipeline knows by a link below its source folder.

    Attributes:
        file: the image itself, which messages name.
        link: the same file below the source folder.
    """

    file: ImageFile
    link: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        """The one file read."""
        return (self.link,)

    @property
    def copied(self) -> Path | None:
        """The file, whose bytes may become the converted image."""
        return self.file.copied

    def read(self) -> np.ndarray:
        """Return the image, uint8 H x W x 3 RGB."""
        return self.file.read()


@dataclass(frozen=True)
class LinkedMask:
    """A mask that the pipeline knows by a link below its source folder.

    Attributes:
        source: how the file itself is read.
        link: the same file below the source folder.
    """

    source: MaskSource
    link: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        """The one file read."""
        return (self.link,)

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return ``(category, bool height x width mask)`` pairs."""
        return self.source.read(height, width)


@dataclass(frozen=True)
class ValueMask:
    """A mask file whose non-zero values name categories or number objects, up to 65535.

    Files with a colour table (the PASCAL VOC kind) give the numbers of its entries, not their colours.

    Attributes:
        path: the mask file.
        names: value to category; None takes any value for an object of the category ``object``.
        merge: values of one category are one mask; otherwise every value is one.
    """

    path: Path
    names: Mapping[int, str] | None
    merge: bool

    @property
    def paths(self) -> tuple[Path, ...]:
        """The one file read."""
        return (self.path,)

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return ``(category, bool height x width mask)`` by value; DataError for a value without a category."""
        values = read_mask(self.path, palette="index")
        if values.shape != (height, width):
            raise DataError(f"{self.path}: the mask is {values.shape[1]} x {values.shape[0]} pixels (width x height) "
                            f"but its image is {width} x {height}; check that the two files belong together")
        found = [int(value) for value in np.unique(values) if value]
        unknown = [value for value in found if self.names is not None and value not in self.names]
        if unknown:
            raise DataError(f"{self.path}: the values {sorted(self.names or ())} were expected, found also "
                            f"{unknown[:8]}; name them in --labels, or use --threshold if they are noise")
        masks: dict[object, tuple[str, np.ndarray]] = {}
        for value in found:
            name = OBJECT if self.names is None else self.names[value]
            key = name if self.merge else value
            earlier = masks.get(key)
            mask = values == value
            masks[key] = (name, mask if earlier is None else earlier[1] | mask)
        return list(masks.values())
