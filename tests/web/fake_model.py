"""A model without a network, whose masks are known: a disc around each click, the ellipse in a box."""

from dataclasses import dataclass, field

import numpy as np
import torch

from ultrasam.errors import PromptError
from ultrasam.geometry.transform import SquareTransform
from ultrasam.inference.masks import Masks


@dataclass
class FakeEmbedding:
    features: torch.Tensor
    transform: object = None


class FakeSession:
    """Masks follow from the prompts alone; positive discs less negative ones."""

    field = None

    def __init__(self, model, image, embedding, spacing, name):
        self.model, self.image, self.embedding, self.spacing, self.name = model, image, embedding, spacing, name

    def predict(self, *, prompts):
        height, width = self.image.shape[:2]
        y, x = np.mgrid[:height, :width]
        found, logits = [], []
        for prompt in prompts:
            self.model.asked.append(prompt)
            mask = np.zeros((height, width), bool)
            if prompt.box is not None:
                x1, y1, x2, y2 = (float(v) for v in prompt.box)
                a, b = (x2 - x1) / 2, (y2 - y1) / 2
                mask |= ((x + 0.5 - (x1 + x2) / 2) / a) ** 2 + ((y + 0.5 - (y1 + y2) / 2) / b) ** 2 <= 1
            points = [] if prompt.points is None else list(zip(prompt.points, prompt.labels, strict=True))
            for sign in (1, 0):
                for (u, v), label in points:
                    if not (0 <= u < width and 0 <= v < height):
                        raise PromptError(f"the point ({u:g}, {v:g}) is not in the image")
                    if label == sign:
                        disc = (x - u) ** 2 + (y - v) ** 2 <= self.model.radius**2
                        mask = mask | disc if sign else mask & ~disc
            found.append(mask)
            logits.append(torch.full((16, 16), float(mask.mean())))
        masks = np.stack(found)
        scores = np.full(len(masks), 0.875, np.float32)
        boxes = np.zeros((len(masks), 4), np.float32)
        return Masks(masks, scores, torch.stack(logits), boxes, self.image, self.spacing, self.name, list(prompts))


@dataclass
class FakeModel:
    """What `Engine` needs of `ultrasam.inference.UltraSam`."""

    radius: int = 30
    mask_prompt: bool = True
    card: dict = field(default_factory=lambda: {"name": "fake model"})
    asked: list = field(default_factory=list)
    encoded: list = field(default_factory=list)
    gate: object = None

    def encode(self, images):
        if self.gate is not None:
            self.gate(images)
        self.encoded += [image.copy() for image in images]
        return [FakeEmbedding(torch.zeros(1, 4, 4, 4), SquareTransform.fit(*image.shape[:2], 64)) for image in images]

    def session(self, image, embedding=None, spacing=None, name="", clip=True):
        return FakeSession(self, image, embedding, spacing, name)
