"""Simulated prompts (paper section 2.2): what a click or a drawn box would have been, from the mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ultrasam.errors import ConfigError
from ultrasam.geometry.points import centroid_point, deepest_point, random_point

PROMPT_MODES = ("train", "point", "box", "centroid")


@dataclass(frozen=True)
class ObjectPrompt:
    """Prompt of one object in pixels of the original image.

    Attributes:
        kind: "point" or "box".
        points: (P, 2) float32 x, y.
        point_labels: (P,) int64, 1 positive, 0 negative.
        box: (4,) float32 x1, y1, x2, y2, or None.
    """

    kind: str
    points: NDArray[np.float32]
    point_labels: NDArray[np.int64]
    box: NDArray[np.float32] | None


def click(xy: tuple[float, float]) -> ObjectPrompt:
    """Return the prompt of one positive click."""
    return ObjectPrompt("point", np.array([xy], np.float32), np.ones(1, np.int64), None)


def drawn_box(box: NDArray[np.float32]) -> ObjectPrompt:
    """Return the prompt of one box x1, y1, x2, y2."""
    return ObjectPrompt("box", np.zeros((0, 2), np.float32), np.zeros(0, np.int64), box)


def jitter_box(
    box: tuple[float, float, float, float], share: float, size: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Move each corner by up to ``share`` of the box's width and height, uniform, both signs, within the image.

    Args:
        box: x1, y1, x2, y2.
        share: of width and height, 0.05 in the paper's recipe.
        size: height, width of the image.
        rng: source of the four draws.
    """
    x1, y1, x2, y2 = box
    reach = np.array([x2 - x1, y2 - y1, x2 - x1, y2 - y1]) * share
    moved = np.array(box) + rng.uniform(-1, 1, 4) * reach
    height, width = size
    moved = moved.clip(0, [width, height, width, height])
    return np.concatenate([np.minimum(moved[:2], moved[2:]), np.maximum(moved[:2], moved[2:])]).astype(np.float32)


def simulate_prompt(
    mask: NDArray[np.bool_],
    box: tuple[float, float, float, float],
    mode: str,
    rng: np.random.Generator,
    point_share: float = 0.5,
    box_jitter: float = 0.05,
) -> ObjectPrompt:
    """Return the prompt of one object.

    Args:
        mask: (H, W) bool, not empty.
        box: its x1, y1, x2, y2.
        mode: "train": a point or a box; the point is a uniformly drawn mask pixel plus a jitter in [0, 1), the box's
            corners are jittered. "point": the deepest pixel. "centroid": the mean pixel, as the released system does.
            "box": the box as it is.
        rng: source of the draws; only "train" draws.
        point_share: probability of a point in "train".
        box_jitter: see ``jitter_box``.
    """
    if mode == "point":
        return click(deepest_point(mask))
    if mode == "centroid":
        return click(centroid_point(mask))
    if mode == "box":
        return drawn_box(np.array(box, np.float32))
    if mode != "train":
        raise ConfigError(f"prompt mode must be one of {', '.join(PROMPT_MODES)}, got {mode!r}")
    if rng.uniform() < point_share:
        x, y = random_point(mask, rng)
        jitter = rng.uniform(0, 1, 2)
        return click((x + jitter[0], y + jitter[1]))
    return drawn_box(jitter_box(box, box_jitter, mask.shape, rng))
