"""Masks that come as numbers: polygons, boxes, run lengths, and label volumes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from data_prep.frames import Flips, View, flipped, pick, volume
from data_prep.records import OneFile
from ultrasam.errors import DataError
from ultrasam.geometry.rle import decode_mask, decode_segmentation

Vertices = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Polygons(OneFile):
    """Polygons of an annotation table or file, each an object of its own.

    Attributes:
        path: the file that they come from, for messages and checksums.
        shapes: category and vertices (x, y) of each, in pixels of the image.
        where: what to call the entry in messages.
        coco: as COCO fills them (`pycocotools`); False fills with OpenCV, the border included, as most
            annotation tools do, vertices rounded to the nearest pixel.
    """

    shapes: tuple[tuple[str, Vertices], ...]
    where: str = ""
    coco: bool = False

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return one bool height x width mask per polygon; parts outside the image are cut off."""
        return [(category, self._fill(vertices, height, width)) for category, vertices in self.shapes]

    def _fill(self, vertices: Vertices, height: int, width: int) -> np.ndarray:
        """Return the mask of one polygon."""
        where = f"{self.path}: {self.where}" if self.where else str(self.path)
        points = np.array(vertices, np.float64).reshape(-1, 2)
        if len(points) < 3 or not np.isfinite(points).all():
            raise DataError(f"{where}: a polygon of at least three finite vertices was expected, found {len(points)}")
        if (points.max(axis=0) < 0).any() or (points.min(axis=0) > (width, height)).any():
            raise DataError(f"{where}: a polygon inside the {width} x {height} image was expected, found x from "
                            f"{points[:, 0].min():g} to {points[:, 0].max():g}, y from {points[:, 1].min():g} to "
                            f"{points[:, 1].max():g}; the annotation may belong to another image")
        if self.coco:
            return decode_mask(decode_segmentation([points.ravel().tolist()], height, width, where=where))
        # So far out that the slope of an edge into the image does not change, and safe for OpenCV's numbers.
        whole = np.clip(np.rint(points), -1_000_000, 1_000_000).astype(np.int32)
        # OpenCV draws edges that leave its canvas up to a pixel off, so the canvas takes them in where it can.
        room = max(height, width)
        left, top = np.clip(-whole.min(axis=0), 0, room)
        right, bottom = np.clip(whole.max(axis=0) - (width - 1, height - 1), 0, room)
        canvas = np.zeros((top + height + bottom, left + width + right), np.uint8)
        cv2.fillPoly(canvas, [whole + np.array([left, top], np.int32)], 1)
        return canvas[top:top + height, left:left + width].astype(bool)


@dataclass(frozen=True)
class CocoShape(OneFile):
    """One COCO ``segmentation`` (polygons or RLE) of a published annotation file.

    Attributes:
        path: the annotation file.
        category: name of its category.
        segmentation: as in the file.
        where: what to call it in messages.
    """

    category: str
    segmentation: Any
    where: str = ""

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return its bool height x width mask; the polygons of one segmentation are one mask."""
        where = f"{self.path}: {self.where}" if self.where else str(self.path)
        return [(self.category, decode_mask(decode_segmentation(self.segmentation, height, width, where=where)))]


@dataclass(frozen=True)
class VolumeLabels(OneFile):
    """One frame of a label volume.

    Attributes:
        path: the file.
        index: number of the frame, from 0, along the first axis of the view.
        categories: value to category name; with ``channel`` any non-zero value is the one category under 1.
        ignored: further values that mean background.
        channel: of a (frames, rows, columns, channels) file.
        view: as that of the image.
        flips: as those of the image.
    """

    index: int
    categories: Mapping[int, str]
    ignored: tuple[int, ...] = ()
    channel: int | None = None
    view: View = "file"
    flips: Flips = (False, False)

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return one bool height x width mask per value present, by value; DataError for unknown values."""
        frame = flipped(pick(volume(self.path, self.view).array, self.index, self.path), self.flips)
        if frame.ndim == 2:
            frame = frame[..., None]
        channels = frame.shape[2]
        if self.channel is None and channels != 1:
            raise DataError(f"{self.path}: one label per pixel was expected, found {channels} channels")
        if not 0 <= (self.channel or 0) < channels:
            raise DataError(f"{self.path}: channel {self.channel} (counted from 0) was expected, found {channels}")
        frame = frame[..., self.channel or 0]
        if frame.shape != (height, width):
            raise DataError(f"{self.path}: the label frame is {frame.shape[1]} x {frame.shape[0]} pixels (width x "
                            f"height) but its image is {width} x {height}; check that the files belong together")
        if self.channel is not None:
            mask = np.ascontiguousarray(frame != 0)
            return [(self.categories[1], mask)] if mask.any() else []
        found = np.unique(frame)
        known = {0, *self.ignored, *self.categories}
        unknown = [value for value in found.tolist() if value not in known]
        if unknown:
            raise DataError(f"{self.path}: frame {self.index}: the values {sorted(self.categories)} were expected, "
                            f"found also {unknown[:8]}; check that this is the original label file")
        return [(self.categories[int(value)], np.ascontiguousarray(frame == value))
                for value in found if int(value) in self.categories]
