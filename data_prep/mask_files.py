"""Masks that come as image files: two-valued, label maps, grey levels, colours, thresholds, outlines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data_prep.records import MaskSource, OneFile
from ultrasam.errors import DataError
from ultrasam.io.images import Palette, read_mask, read_mask_colours

Colour = tuple[int, int, int]
# Class of images that show no object.
NORMAL = "normal"


@dataclass(frozen=True)
class BinaryMask(OneFile):
    """A mask file that holds background 0 and one foreground value, 1 or 255.

    Attributes:
        path: the mask file.
        category: name of the category of its foreground.
        palette: what the values of a file with a colour table are, see `read_mask`; "index" where the colours are
            for show.
    """

    category: str
    palette: Palette = "grey"

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return the foreground as one bool height x width mask; DataError for any third value."""
        return [(self.category, two_valued(_read_sized(self.path, height, width, self.palette), self.path))]


@dataclass(frozen=True)
class LabelMask(OneFile):
    """A mask file whose values name categories; 0 is background.

    Attributes:
        path: the mask file.
        categories: value to category name.
        ignored: further values that mean background.
    """

    categories: Mapping[int, str]
    ignored: tuple[int, ...] = ()

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return one bool height x width mask per value present, by value; DataError for unknown values."""
        values = _read_sized(self.path, height, width)
        found = np.unique(values)
        unknown = np.setdiff1d(found, [0, *self.ignored, *self.categories])
        if unknown.size:
            raise DataError(
                f"{self.path}: the values {sorted(self.categories)} were expected, "
                f"found also {_shortened(unknown)}; check that this is the original mask"
            )
        return [(self.categories[int(value)], values == value) for value in found
                if int(value) in self.categories]


@dataclass(frozen=True)
class ThresholdMask(OneFile):
    """A grey mask file with soft or compressed borders (JPEG, anti-aliased): foreground is above a threshold.

    Attributes:
        path: the mask file.
        category: name of the category of its foreground.
        threshold: values above it are foreground.
        resize: the file may have another size than its image; it is then resized to it (nearest).
        turn: clockwise turns by 90 degrees that bring it over its image.
        soft: largest share of pixels from 64 to 192; more means that the file is not a mask.
    """

    category: str
    threshold: int = 127
    resize: bool = False
    turn: int = 0
    soft: float = 0.2

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return the foreground as one bool height x width mask."""
        values = np.rot90(read_mask(self.path), -self.turn)
        if values.max(initial=0) > 255:
            raise DataError(f"{self.path}: 8-bit grey values were expected, found {values.max()}")
        share = float(((values >= 64) & (values <= 192)).mean()) if values.size else 0.0
        if share > self.soft:
            raise DataError(f"{self.path}: a mask of black and white was expected, found {share:.0%} of the pixels "
                            "in between; check that this is a mask and not an image")
        mask = np.ascontiguousarray(values > self.threshold)
        return [(self.category, _fitted(mask, self.path, height, width, self.resize))]


@dataclass(frozen=True)
class ColourMask(OneFile):
    """A mask file painted in colours; every pixel takes the nearest colour of the table.

    Attributes:
        path: the mask file.
        colours: category to RGB.
        background: RGB values that mean no category.
        tolerance: largest distance (of any channel) between a pixel and its table colour; 0 wants exact colours.
        strays: largest share of pixels beyond the tolerance; those become background. 0 allows none.
        resize: as in `ThresholdMask`.
    """

    colours: Mapping[str, Colour]
    background: tuple[Colour, ...] = ((0, 0, 0),)
    tolerance: int = 0
    strays: float = 0.0
    resize: bool = False

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return one bool height x width mask per category present, in the order of the table."""
        table = np.array([*self.colours.values(), *self.background], np.int16)
        # The colours of a mask are few; matching them and not the pixels is what makes this fast.
        packed = _packed(read_mask_colours(self.path))
        found, inverse, counts = np.unique(packed, return_inverse=True, return_counts=True)
        rgb = np.column_stack([found >> 16, found >> 8 & 255, found & 255]).astype(np.int16)
        distance = np.abs(rgb[:, None] - table[None]).max(axis=2)
        nearest = distance.argmin(axis=1)
        far = distance.min(axis=1) > self.tolerance
        if counts[far].sum() > self.strays * packed.size:
            listed = [tuple(int(value) for value in colour) for colour in rgb[far][:8]]
            raise DataError(
                f"{self.path}: the colours {dict(self.colours)} (tolerance {self.tolerance}) were expected, found "
                f"also {listed} in {int(counts[far].sum())} pixels; check that this is the original mask"
            )
        nearest[far] = len(table)  # no entry of the table
        index = nearest[inverse].reshape(packed.shape)
        return [(name, _fitted(index == number, self.path, height, width, self.resize))
                for number, name in enumerate(self.colours) if (index == number).any()]


@dataclass(frozen=True)
class GreyMask(OneFile):
    """A mask file whose grey levels name categories, with soft borders: every pixel takes the nearest level.

    Attributes:
        path: the mask file.
        levels: category to grey value; 0 is background.
        tolerance: largest distance of a pixel that counts as meant; at borders values in between are normal.
        strays: largest share of pixels beyond the tolerance.
        resize: as in `ThresholdMask`.
    """

    levels: Mapping[str, int]
    tolerance: int = 10
    strays: float = 0.1
    resize: bool = False

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return one bool height x width mask per category present, in the order of the levels."""
        values = read_mask(self.path).astype(np.int32)
        table = np.array([0, *self.levels.values()])
        distance = np.abs(values[..., None] - table)
        nearest, far = distance.argmin(axis=2), distance.min(axis=2) > self.tolerance
        if far.mean() > self.strays:
            raise DataError(
                f"{self.path}: the grey levels {sorted(self.levels.values())} on 0 were expected, found also "
                f"{_shortened(np.unique(values[far]))} in {far.mean():.1%} of the pixels; check that this is the mask"
            )
        return [(name, _fitted(nearest == number, self.path, height, width, self.resize))
                for number, name in enumerate(self.levels, start=1) if (nearest == number).any()]


@dataclass(frozen=True)
class OutlineMask(OneFile):
    """A mask file that holds a thin ellipse outline on black (HC18).

    The ellipse is fitted to the outline and filled, so that an outline that is broken or leaves the image is
    closed too.

    Attributes:
        path: the mask file.
        category: name of the category inside.
        agreement: an outline further (in pixels, mean) than this from its ellipse is refused.
    """

    category: str
    agreement: float = 3.0

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return the inside with the outline as one bool height x width mask; none for an empty file."""
        line = _read_sized(self.path, height, width) > 0
        if not line.any():
            return []
        rows, columns = np.nonzero(line)
        if len(rows) < 20:
            raise DataError(f"{self.path}: an ellipse outline was expected, found {len(rows)} pixels")
        ellipse = cv2.fitEllipseDirect(np.column_stack([columns, rows]).astype(np.float32))
        if not 3 <= min(ellipse[1]) <= max(ellipse[1]) < np.inf:
            raise DataError(f"{self.path}: an ellipse outline was expected, found pixels in a line or a spot")
        filled = np.zeros((height, width), np.uint8)
        cv2.ellipse(filled, ellipse, 1, -1)
        distance = np.abs(_ellipse_distance(rows, columns, ellipse)).mean()
        if distance > self.agreement:
            raise DataError(f"{self.path}: an ellipse outline was expected, the nearest ellipse is {distance:.1f} "
                            "pixels away on average; the file may hold a filled mask")
        return [(self.category, filled.astype(bool) | line)]


@dataclass(frozen=True)
class PaintedMask(OneFile):
    """A mask file in which every pixel that is not black belongs to one object, whatever its colour.

    Attributes:
        path: the mask file.
        category: name of the object's category.
        colours: RGB values that the object may have.
    """

    category: str
    colours: tuple[Colour, ...]

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return the object as one bool height x width mask; DataError for a colour that is not in the list."""
        packed = _packed(read_mask_colours(self.path))
        found = {(code >> 16, code >> 8 & 255, code & 255) for code in np.unique(packed).tolist()}
        unknown = sorted(found - {(0, 0, 0), *self.colours})
        if unknown:
            raise DataError(f"{self.path}: the colours {list(self.colours)} on black were expected, found also "
                            f"{unknown[:8]}; check that this is the original mask")
        return [(self.category, _fitted(packed > 0, self.path, height, width, resize=False))]


@dataclass(frozen=True)
class CheckedMask:
    """A mask that must agree with the class of its image: nothing on a normal one, an object on any other.

    An empty mask of an image with an object is a damaged or missing annotation; kept, it would teach that there
    is none.

    Attributes:
        mask: the mask.
        label: class of the image.
    """

    mask: MaskSource
    label: str

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files of the mask."""
        return self.mask.paths

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return the pairs of the mask; DataError when it does not agree with the class."""
        found = self.mask.read(height, width)
        drawn = any(bool(mask.any()) for _, mask in found)
        if drawn and self.label == NORMAL:
            raise DataError(f"{self.paths[0]}: an empty mask was expected because the image is {self.label}, the mask "
                            "has objects; get the file again")
        if not drawn and self.label != NORMAL:
            raise DataError(f"{self.paths[0]}: an object was expected because the image is {self.label}, the mask "
                            "is empty; get the file again")
        return found


def two_valued(values: np.ndarray, where: object) -> np.ndarray:
    """Return the foreground of a mask's values (0 and 1, or 0 and 255) as bool; DataError for any third value.

    Args:
        values: whole numbers, height x width.
        where: file and place, for messages.
    """
    found = np.unique(values)
    if not (np.isin(found, (0, 1)).all() or np.isin(found, (0, 255)).all()):
        raise DataError(
            f"{where}: a two-valued mask (0 and 1, or 0 and 255) was expected, "
            f"found the values {_shortened(found)}; the file may be re-encoded, use the original"
        )
    return np.asarray(values > 0)


def _packed(pixels: np.ndarray) -> np.ndarray:
    """Return RGB pixels (uint8 H x W x 3) as one number each (int32 H x W): finding the few different ones is fast."""
    wide = pixels.astype(np.int32)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2])


def _ellipse_distance(
    rows: np.ndarray, columns: np.ndarray, ellipse: tuple[Sequence[float], Sequence[float], float]
) -> np.ndarray:
    """Return the distance in pixels of points from an ellipse (centre, axes, degrees), along the ray to its centre."""
    (x0, y0), (across, down), degrees = ellipse
    angle = np.deg2rad(degrees)
    x, y = columns - x0, rows - y0
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    radius = np.hypot(u, v)
    scale = np.hypot(2 * u / max(across, 1e-6), 2 * v / max(down, 1e-6))
    return radius - radius / np.maximum(scale, 1e-6)


def _fitted(mask: np.ndarray, path: Path, height: int, width: int, resize: bool) -> np.ndarray:
    """Return a bool mask of the image's size, resized (nearest) where that is allowed, else DataError."""
    if mask.shape == (height, width):
        return mask
    if not resize:
        raise _other_size(path, mask.shape, height, width)
    ratio = (mask.shape[0] * width) / (mask.shape[1] * height)
    if not 0.97 < ratio < 1.03:
        raise _other_size(path, mask.shape, height, width)
    # The pixel under each pixel's centre, in whole numbers: no rounding decides where a centre lies between two.
    rows = (2 * np.arange(height) + 1) * mask.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * mask.shape[1] // (2 * width)
    return np.ascontiguousarray(mask[rows[:, None], columns])


def _read_sized(path: Path, height: int, width: int, palette: Palette = "grey") -> np.ndarray:
    """Return the mask's values (height x width); DataError when its size is not the image's."""
    values = read_mask(path, palette=palette)
    if values.shape != (height, width):
        raise _other_size(path, values.shape, height, width)
    return values


def _other_size(path: Path, shape: tuple[int, ...], height: int, width: int) -> DataError:
    """Return the error for a mask that does not fit its image."""
    found = " x ".join(str(side) for side in shape[::-1])
    return DataError(
        f"{path}: the mask is {found} pixels (width x height) but its image is {width} x {height}; "
        "check that the two files belong together"
    )


def _shortened(values: np.ndarray, limit: int = 8) -> str:
    """Return the first values as text."""
    text = ", ".join(str(value) for value in values[:limit].tolist())
    return text if values.size <= limit else f"{text}, ... ({values.size} values)"
