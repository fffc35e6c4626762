"""Prompts of the robustness curves: boxes drawn inexactly, clicks in other places, and corrective clicks."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import numpy.typing as npt

from ultrasam.datasets.prompts import ObjectPrompt
from ultrasam.errors import ConfigError
from ultrasam.evaluation.surface import border
from ultrasam.geometry.points import centroid_point, deepest_point, random_point

Mask = npt.NDArray[np.bool_]
Click = tuple[float, float, int]

POSITIONS = ("deepest", "centroid", "random", "border")


def object_generator(seed: int, identity: str, what: str) -> np.random.Generator:
    """Return the generator of one object's draws, the same whichever worker draws, and in whatever order.

    Args:
        seed: of the run.
        identity: of the object over all data sets; no path, which differs between machines.
        what: is drawn, such as "box".
    """
    digest = hashlib.sha256(f"{seed}/{what}/{identity}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))


def click_at(mask: Mask, position: str, rng: np.random.Generator) -> Click:
    """Return the first click (x, y, 1) of an object.

    Args:
        mask: bool (H, W), not empty.
        position: "deepest" (the pixel farthest from the outside), "centroid" (mean of the pixels, which may lie
            outside), "random" (a pixel of the object) or "border" (a pixel of the object that touches the outside).
        rng: draws "random" and "border".

    Raises:
        ConfigError: no such position.
        PromptError: the mask is empty.
    """
    if position == "deepest":
        x, y = deepest_point(mask)
    elif position == "centroid":
        return (*centroid_point(mask), 1)
    elif position == "random":
        x, y = random_point(mask, rng)
    elif position == "border":
        x, y = random_point(border(mask), rng)
    else:
        raise ConfigError(f"the click position must be one of {', '.join(POSITIONS)}, found {position!r}")
    return float(x), float(y), 1


def corrective_click(mask: Mask, truth: Mask) -> Click | None:
    """Return the click that an expert would add: into the middle of the largest error.

    Errors are the connected parts (8 neighbours) of the missed and of the superfluous pixels. The largest part is
    clicked at its deepest pixel, as inside where it was missed, as outside where it is superfluous; of parts of one
    size a missed one comes first, then the first in reading order.

    Args:
        mask: predicted, bool (H, W).
        truth: bool (H, W).

    Returns:
        (x, y, label), label 1 inside and 0 outside; None where the masks are the same.
    """
    best: tuple[int, Mask, int] | None = None
    for error, label in ((truth & ~mask, 1), (mask & ~truth, 0)):
        found = largest_part(error)
        if found is not None and (best is None or found[0] > best[0]):
            best = (*found, label)
    if best is None:
        return None
    x, y = deepest_point(best[1])
    return float(x), float(y), best[2]


def largest_part(mask: Mask) -> tuple[int, Mask] | None:
    """Return pixels and mask of the largest connected part (8 neighbours), the first in reading order of equal ones."""
    if not mask.any():
        return None
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    largest = 1 + np.flatnonzero(areas == areas.max())
    # OpenCV promises no order of the labels.
    number = largest[0] if len(largest) == 1 else labels[np.isin(labels, largest)][0]
    return int(areas.max()), labels == number


def clicks_prompt(clicks: list[Click]) -> ObjectPrompt:
    """Return the prompt of some clicks (x, y, label) on one object."""
    table = np.array(clicks, np.float64).reshape(-1, 3)
    return ObjectPrompt("point", table[:, :2].astype(np.float32), table[:, 2].astype(np.int64), None)
