"""The rules that turn labelled masks into objects."""

from __future__ import annotations

import cv2
import numpy as np

from data_prep.records import MaskRules


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
