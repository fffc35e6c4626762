"""How a model's masks depend on the prompt: boxes, click positions, corrective clicks; one encoding an image."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ultrasam.datasets.prompts import ObjectPrompt, drawn_box, jitter_box
from ultrasam.datasets.transforms import prompt_tokens
from ultrasam.errors import ConfigError
from ultrasam.evaluation.overlap import dice
from ultrasam.evaluation.robustness_prompts import (
    POSITIONS,
    Click,
    Mask,
    click_at,
    clicks_prompt,
    corrective_click,
    object_generator,
)
from ultrasam.geometry.rle import decode_mask
from ultrasam.modeling.prompt_encoder import Prompts
from ultrasam.models.postprocess import masks_at_original_size

JITTER = (0.0, 0.05, 0.1, 0.2, 0.3)
CLICKS = 5
# Objects of an image answered together: bounds the memory where an image has hundreds.
_PORTION = 8


class Detector(Protocol):
    """What is asked of a model, see `ultrasam.models.detector.UltraSamDetector`."""

    mask_order: str
    mask_prompt: bool

    def extract_feat(self, batch_inputs: Sequence[Tensor]) -> Tensor:
        """Encode images."""

    def answers(
        self, embeddings: Tensor, prompts: Prompts, samples: Sequence[Any] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return logits and predicted IoU of each prompt."""


@dataclass(frozen=True)
class Plan:
    """Which prompts every object gets. The exact box and, with clicks, the deepest point are always among them.

    Attributes:
        jitter: shares of width and height that the corners of boxes move by.
        positions: of the first click.
        clicks: number of clicks; 0 asks no clicks at all, for models without points.
        seed: of all draws.
    """

    jitter: tuple[float, ...] = JITTER
    positions: tuple[str, ...] = POSITIONS
    clicks: int = CLICKS
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = [share for share in self.jitter if not 0 <= share <= 1]
        if wrong:
            raise ConfigError(f"box jitter is a share of the box's sides, from 0 to 1, found {wrong[0]}")
        unknown = [name for name in self.positions if name not in POSITIONS]
        if unknown:
            raise ConfigError(f"the click position must be one of {', '.join(POSITIONS)}, found {unknown[0]!r}")
        if self.clicks < 0:
            raise ConfigError(f"the number of clicks must not be negative, found {self.clicks}")
        positions = {"deepest", *self.positions} if self.clicks else set()
        object.__setattr__(self, "jitter", tuple(sorted({0.0, *map(float, self.jitter)})))
        object.__setattr__(self, "positions", tuple(name for name in POSITIONS if name in positions))


@dataclass(frozen=True)
class ObjectCurves:
    """Dice of one object under every prompt of the plan.

    Attributes:
        dataset: slug of the data set.
        group: patient or video.
        image_id: in the annotation file.
        annotation_id: in the annotation file.
        area: true pixels.
        share: of the image's pixels.
        jitter: one value a share of jitter.
        positions: one value a position.
        clicks: one value a number of clicks, from 1; where the mask is perfect, later ones repeat it.
    """

    dataset: str
    group: str
    image_id: str
    annotation_id: str
    area: int
    share: float
    jitter: tuple[float, ...]
    positions: tuple[float, ...]
    clicks: tuple[float, ...]


@dataclass
class Cost:
    """What it took.

    Attributes:
        images: with objects.
        without_objects: images that were left out, having none.
        objects: measured.
        decodes: masks that the decoder was asked for.
        encode_seconds: of the encoder or the embedding cache.
        decode_seconds: of decoder, enlarging, scoring and the choice of clicks.
    """

    images: int = 0
    without_objects: int = 0
    objects: int = 0
    decodes: int = 0
    encode_seconds: float = 0.0
    decode_seconds: float = 0.0

    def record(self) -> dict[str, float | int]:
        """Return the counts and the seconds per image, object and mask."""
        return {
            "images": self.images,
            "images_without_objects": self.without_objects,
            "objects": self.objects,
            "masks_per_object": self.decodes / max(self.objects, 1),
            "encode_seconds_per_image": self.encode_seconds / max(self.images, 1),
            "prompt_seconds_per_object": self.decode_seconds / max(self.objects, 1),
            "prompt_seconds_per_mask": self.decode_seconds / max(self.decodes, 1),
        }


@dataclass
class _Image:
    """One encoded image with some of its objects."""

    detector: Detector
    embedding: Tensor
    sample: Any
    truths: list[Mask]
    boxes: list[tuple[float, ...]]
    names: list[str]
    cost: Cost = field(default_factory=Cost)

    def ask(self, prompts: Sequence[ObjectPrompt], before: Tensor | None = None) -> Tensor:
        """Return the logits (N, h, w) that answer prompts, given those of the answers before."""
        tokens = prompt_tokens(prompts, self.sample.transform)
        device = self.embedding.device
        masks = None if before is None else before[:, None].to(self.embedding.dtype)
        placed = Prompts(tokens.coords.to(device), tokens.labels.to(device), tokens.image_index.to(device), masks)
        self.cost.decodes += len(prompts)
        return self.detector.answers(self.embedding, placed, [self.sample])[0]

    def masks(self, logits: Tensor) -> list[Mask]:
        """Return the masks at the image's size."""
        return list(masks_at_original_size(logits, self.sample.transform, self.detector.mask_order).cpu().numpy())


@torch.inference_mode()
def measure_image(detector: Detector, image: Tensor, sample: Any, plan: Plan, cost: Cost) -> list[ObjectCurves]:
    """Return the curves of every object of an image, which is encoded once.

    Args:
        detector: in evaluation mode.
        image: resized (3, h, w) uint8, on the detector's device.
        sample: packed by the test pipeline; its prompts are not used.
        plan: which prompts.
        cost: is added to.
    """
    truths = [decode_mask(rle) for rle in sample.gt_instances.rles]
    if not truths:
        cost.without_objects += 1
        return []
    started = _now(image)
    embedding = detector.extract_feat([image])
    encoded = _now(image)
    cost.encode_seconds += encoded - started
    boxes = [tuple(float(value) for value in box) for box in sample.gt_instances.bboxes]
    ids = [str(getattr(number, "item", lambda n=number: n)()) for number in sample.gt_instances.annotation_ids]
    names = [f"{sample.dataset}/{sample.img_id}/{number}" for number in ids]
    found: list[ObjectCurves] = []
    for start in range(0, len(truths), _PORTION):
        part = slice(start, start + _PORTION)
        asked = _Image(detector, embedding, sample, truths[part], boxes[part], names[part], cost)
        curves = zip(*_measure(asked, plan), truths[part], ids[part], strict=True)
        for jitter, positions, clicks, truth, number in curves:
            area = int(truth.sum())
            found.append(
                ObjectCurves(
                    str(sample.dataset), str(sample.group), str(sample.img_id), number, area, area / truth.size,
                    jitter, positions, clicks,
                )
            )  # fmt: skip
    cost.images += 1
    cost.objects += len(truths)
    cost.decode_seconds += _now(image) - encoded
    return found


def _measure(image: _Image, plan: Plan) -> tuple[list[tuple[float, ...]], ...]:
    """Return for each object the Dice of every jitter, position and number of clicks."""
    count = len(image.truths)
    chains = _click_chains(image, plan.clicks) if plan.clicks else np.zeros((count, 0))
    others = [name for name in plan.positions if name != "deepest"]
    prompts = [_jittered(image, number, share, plan.seed) for share in plan.jitter for number in range(count)]
    for name in others:
        for truth, identity in zip(image.truths, image.names, strict=True):
            rng = object_generator(plan.seed, identity, name)
            prompts.append(clicks_prompt([click_at(truth, name, rng)]))
    table = np.zeros((len(plan.jitter) + len(others), count))
    logits = image.ask(prompts).unflatten(0, table.shape)
    for row, part in enumerate(logits):
        table[row] = [dice(mask, truth) for mask, truth in zip(image.masks(part), image.truths, strict=True)]
    jitter, positions = table[: len(plan.jitter)], table[len(plan.jitter) :]
    if plan.clicks:
        # One click at the deepest point is where the corrections start.
        positions = np.insert(positions, plan.positions.index("deepest"), chains[:, 0], axis=0)
    return tuple([tuple(map(float, line)) for line in part] for part in (jitter.T, positions.T, chains))


def _jittered(image: _Image, number: int, share: float, seed: int) -> ObjectPrompt:
    """Return the box of an object, its corners moved by the same draws for every share."""
    rng = object_generator(seed, image.names[number], "box")
    x1, y1, x2, y2 = image.boxes[number]
    if not share:
        return drawn_box(np.array([x1, y1, x2, y2], np.float32))
    return drawn_box(jitter_box((x1, y1, x2, y2), share, image.truths[number].shape, rng))


def _click_chains(image: _Image, clicks: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the Dice (N, clicks) after each click, the first at the deepest point, the others corrective."""
    rng = np.random.default_rng(0)
    given: list[list[Click]] = [[click_at(truth, "deepest", rng)] for truth in image.truths]
    found = np.full((len(given), clicks), math.nan)
    active, before = list(range(len(given))), None
    for step in range(clicks):
        logits = image.ask([clicks_prompt(given[number]) for number in active], before)
        kept: list[int] = []
        for row, (number, mask) in enumerate(zip(active, image.masks(logits), strict=True)):
            # A mask without an error gets no further click and stays.
            found[number, step:] = dice(mask, image.truths[number])
            click = corrective_click(mask, image.truths[number]) if step + 1 < clicks else None
            if click is not None:
                given[number].append(click)
                kept.append(row)
        if not kept:
            break
        before = logits[kept] if image.detector.mask_prompt else None
        active = [active[row] for row in kept]
    return found


def _now(image: Tensor) -> float:
    """Return the time in seconds, after what the device still has to do."""
    if image.is_cuda:
        torch.cuda.synchronize(image.device)
    return time.perf_counter()
