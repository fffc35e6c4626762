"""Heart chambers in label frames: outlines in place of areas, and values that name other chambers than expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.mask_shapes import VolumeLabels
from data_prep.masks import fill_holes
from ultrasam.errors import DataError

# Pixels; smaller masks are slips of the pen.
LEAST_AREA = 50


@dataclass(frozen=True)
class ChamberLabels(VolumeLabels):
    """A label frame whose chambers must be areas or closed outlines, in the places that anatomy gives them."""

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return one bool height x width mask per value present; DataError for open lines and misnamed chambers."""
        masks = close_shared_outlines(dict(super().read(height, width)))
        where = f"{self.path}: frame {self.index}"
        for name, mask in masks.items():
            if is_line(fill_holes(mask)):
                raise DataError(f"{where}: an area or a closed outline was expected for {name}, found an open line")
        if ventricles_apart(masks):
            raise DataError(f"{where}: the two ventricles side by side were expected, found the left ventricle beside "
                            "an atrium; the file seems to number its chambers in another order")
        return list(masks.items())


def close_shared_outlines(masks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the masks (bool H x W) with the inside of outlines that are closed by a neighbour's outline only.

    Where two outlines share a stretch, the pixels have one value, and the other outline is open there. A hole is
    the inside of the outline that makes up more than half of its rim; one that four chambers surround is nobody's.
    """
    if not masks:
        return masks
    filled = dict(masks)
    union = np.logical_or.reduce(list(masks.values()))
    count, holes = cv2.connectedComponents((fill_holes(union) & ~union).astype(np.uint8), connectivity=4)
    for number in range(1, count):
        hole = holes == number
        rim = cv2.dilate(hole.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~hole
        owner = max(masks, key=lambda name: int((masks[name] & rim).sum()))
        if 2 * int((masks[owner] & rim).sum()) > int(rim.sum()) and is_line(fill_holes(masks[owner])):
            filled[owner] = filled[owner] | hole
    return filled


def is_line(mask: np.ndarray) -> bool:
    """Whether most of a bool H x W mask is thinner than five pixels; never for masks of fewer than 50 pixels."""
    area = int(mask.sum())
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    # Padded, since a chamber may be cut by the border of the image.
    opened = cv2.morphologyEx(np.pad(mask, 4, mode="edge").astype(np.uint8), cv2.MORPH_OPEN, kernel)[4:-4, 4:-4]
    return area >= LEAST_AREA and 2 * int(opened.sum()) < area


def ventricles_apart(masks: Mapping[str, np.ndarray]) -> bool:
    """Whether four chambers by name contradict the apical view: the ventricles are on one height, the atria on another.

    Which side is up does not matter. False where a chamber is missing.
    """
    names = ("left_ventricle", "right_ventricle", "left_atrium", "right_atrium")
    if any(name not in masks for name in names):
        return False
    left, right, *atria = (float(np.nonzero(masks[name])[0].mean()) for name in names)
    return abs(left - right) > min(abs(left - atrium) for atrium in atria)
