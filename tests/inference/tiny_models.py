"""Small networks with random weights, and images, for the tests of prediction."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch

from ultrasam.inference.model import UltraSam
from ultrasam.modeling.build import build_sam
from ultrasam.modeling.sam import Sam

SIZE = 128


@dataclass
class TinyNetwork:
    sam: Sam
    passes: tuple[str, ...] = ("single", "multi")
    mask_prompt: bool = True
    card: dict[str, Any] = field(default_factory=dict)


@lru_cache
def random_sam(arch="vit_tiny", size=SIZE, seed=0, **preprocessing):
    torch.manual_seed(seed)
    sam = build_sam(arch, size, preprocessing).eval().requires_grad_(False)
    # Random position tables, or the encoder would not tell places apart.
    for name, parameter in sam.named_parameters():
        if "rel_pos" in name or "pos_embed" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return sam


def tiny_model(passes=("single", "multi"), mask_prompt=True, **arguments):
    return UltraSam(TinyNetwork(random_sam(**arguments), tuple(passes), mask_prompt))


def noise(height=90, width=120, seed=0):
    """An image that is bright everywhere, so that its field of view is the whole."""
    return np.random.default_rng(seed).integers(60, 255, (height, width, 3), dtype=np.uint8)


def fan(height=240, width=320, text=True):
    """A screen: a bright fan on black, and text beside it. Returns the image, the fan and the text, bool."""
    rng = np.random.default_rng(1)
    inside = np.zeros((height, width), np.uint8)
    left, right, bottom = width // 2 - 90, width // 2 + 90, height - 50
    corners = [(left + 70, 20), (right - 70, 20), (right, bottom), (left, bottom)]
    cv2.fillConvexPoly(inside, np.array(corners), 1)
    image = np.where(inside[..., None] == 1, rng.integers(60, 200, (height, width, 1)), 0).astype(np.uint8)
    letters = np.zeros((height, width), np.uint8)
    if text:
        for at, words in (((5, 14), "GAIN 42"), ((width - 90, 60), "DEPTH 9"), ((5, height - 10), "PATIENT 0001")):
            cv2.putText(letters, words, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1, 1)
    image[letters == 1] = 230
    return np.repeat(image, 3, axis=2), inside.view(bool), letters.view(bool)
