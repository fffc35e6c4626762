"""What a converter states about a dataset and about each of its images; nothing here reads pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np


class ImageSource(Protocol):
    """Where the pixels of one image come from; sources are small and can be sent to a process."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Files that `read` opens, the one that names the image first."""

    @property
    def copied(self) -> Path | None:
        """A PNG or JPEG file whose bytes may become the converted image, as they are."""

    def read(self) -> np.ndarray:
        """Return the image, uint8 H x W x 3 RGB."""


class MaskSource(Protocol):
    """Where the labelled masks of one image come from; sources are small and can be sent to a process."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Files that `read` opens."""

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return ``(category, bool height x width mask)`` pairs, in a fixed order."""


@dataclass(frozen=True)
class OneFile:
    """Base of the sources that read one file.

    Attributes:
        path: the file.
    """

    path: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        """The one file read."""
        return (self.path,)


@dataclass(frozen=True)
class MaskRules:
    """How raw masks become objects.

    Attributes:
        split_components: make every 8-connected component its own object.
        fill_holes: set background that does not reach the border (4-connected); for solid structures.
        min_area: components of fewer pixels than this are dropped, and counted in the manifest.
        clip_to_fov: clear what lies outside the field of view (`data_prep.fov`).
        crop_background: crop images of which more than half is outside the field of view (paper section 2.1).
            Off for the paper's three test sets, whose published scores are for whole images.
        drop_empty: leave out images without masks and those whose masks are all empty, and count them in the
            manifest as ``unlabelled``: for sets in which every image shows an object, so that such an image is one
            that nobody annotated. Otherwise it stays, as an image of nothing.
    """

    split_components: bool = True
    fill_holes: bool = False
    min_area: int = 1
    clip_to_fov: bool = False
    crop_background: bool = True
    drop_empty: bool = False


@dataclass(frozen=True)
class Record:
    """One image of a dataset, as its converter describes it.

    Attributes:
        key: file name of the converted image without suffix; unique in the set.
        image: source of its pixels (`data_prep.frames`).
        masks: sources of its labelled masks.
        group: patient, video or volume that the image belongs to; a group is never on two sides of a split.
        fold: number of the official cross-validation fold, where the set has folds.
        split: official side, ``"train"`` or ``"test"``, where the set has sides instead of folds.
        frame: number of the frame in its video or volume, from 0.
        spacing: millimetres per pixel along (rows, columns), where known.
        label: class of the whole image (``benign``, ...), where the set has one.
        attributes: written into the image record as they are (``official_split``, ``view``, ...).
        size: (height, width) in pixels that the set's own tables state; checked against the image.
        box: x1, y1, x2, y2 (half-open, pixels) that the set's own tables state; checked against the masks.
    """

    key: str
    image: ImageSource
    masks: tuple[MaskSource, ...]
    group: str
    fold: int | None = None
    split: str | None = None
    frame: int | None = None
    spacing: tuple[float, float] | None = None
    label: str | None = None
    attributes: Mapping[str, object] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    box: tuple[int, int, int, int] | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every raw file that the record needs."""
        return (*self.image.paths, *(path for source in self.masks for path in source.paths))


@dataclass(frozen=True)
class DatasetInfo:
    """Catalogue entry of a dataset.

    Attributes:
        slug: name of the output folder and of the files.
        categories: names in the order of their ids 1, 2, ...
        group_key: what a group is, in words.
        official_split: the split that the authors publish, in words; empty when there is none.
        test_folds: folds that form the test side unless the command says otherwise.
        expected: counts of the complete published set (``images``, ``masks``, ``groups``), as this converter
            counts them; only what is certain.
        table1: images and masks of the paper's Table 1.
        view: what the pictures show, in words (``transverse``, ``apical four-chamber``, ...).
        names: file and folder name patterns (lower case, `fnmatch`) by which ``prepare`` finds the download.
        unsure: what is not certain of the layout, in one sentence; added to every complaint about it.
        alias_of: slug of the set that has the same images; ``prepare`` takes only one of them.
        access: how to get it, in one sentence, where the link alone is not enough.
        ignored: file name patterns (lower case, `fnmatch`) of images that lie beside the used ones and are known
            not to be data; all others are listed as unused.
    """

    slug: str
    name: str
    home: str
    licence: str
    application: str
    organ: str
    categories: tuple[str, ...]
    group_key: str
    official_split: str = ""
    test_folds: tuple[int, ...] = ()
    expected: Mapping[str, int] = field(default_factory=dict)
    rules: MaskRules = MaskRules()
    table1: tuple[int, int] | None = None
    view: str = ""
    names: tuple[str, ...] = ()
    unsure: str = ""
    alias_of: str = ""
    access: str = ""
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class Converter:
    """A catalogue entry and the generator of its records, given the folder of the raw files."""

    info: DatasetInfo
    records: Callable[[Path], Iterator[Record]]
