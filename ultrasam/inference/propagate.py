"""Following objects through a cine loop or a volume, from one prompted frame in both directions.

Each frame is asked with what the frame before it gave: the box of its mask, with a margin, and its logits as mask
prompt. An object is followed until the answer cannot be trusted (``LossRule``); that is said, and it stops there.
Frames are read, encoded and forgotten one at a time; what stays of a frame are run lengths.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ultrasam.errors import ConfigError, PromptError
from ultrasam.geometry.extent import extent_of
from ultrasam.geometry.rle import RLE, decode_mask, encode_mask
from ultrasam.inference.masks import Masks
from ultrasam.inference.prompt import Prompt

if TYPE_CHECKING:
    from ultrasam.inference.model import UltraSam
    from ultrasam.io.scan_base import Scan

DIRECTIONS = ("both", "forward", "backward")
# Frames that are read ahead to be gone through backwards.
BLOCK_BYTES = 64 << 20


@dataclass(frozen=True)
class LossRule:
    """When an object counts as lost.

    Attributes:
        min_iou: least IoU that the network predicts for its mask.
        max_iou_drop: greatest difference to the median of that prediction so far. A network that is asked with a box
            answers even where the object is gone; its own doubt is then the only sign.
        max_area_change: greatest factor between the areas of two frames that follow each other, either way.
        min_overlap: least IoU of the masks of two such frames.
    """

    min_iou: float = 0.5
    max_iou_drop: float = 0.2
    max_area_change: float = 2.0
    min_overlap: float = 0.3

    def __post_init__(self) -> None:
        shares = (self.min_iou, self.max_iou_drop, self.min_overlap)
        if not (all(0 <= share <= 1 for share in shares) and self.max_area_change >= 1):
            raise ConfigError(
                "an object is lost by a predicted IoU, its drop and an overlap from 0 to 1 and an area change of at "
                f"least 1, found {', '.join(f'{share:g}' for share in shares)} and {self.max_area_change:g}"
            )

    def reason(self, mask: NDArray[np.bool_], before: NDArray[np.bool_], score: float, usual: float) -> str:
        """Return why the object is lost, in words; "" where it is not.

        Args:
            mask: (H, W) bool, the answer.
            before: (H, W) bool, the mask of the frame before, not empty.
            score: predicted IoU of the answer.
            usual: median of the predicted IoU in the frames so far.
        """
        area, earlier = int(mask.sum()), int(before.sum())
        if area == 0:
            return "nothing was found"
        # Also where it is NaN.
        if not score >= self.min_iou:
            return f"the predicted IoU {score:.2f} is below {self.min_iou:g}"
        if usual - score > self.max_iou_drop:
            return f"the predicted IoU fell from {usual:.2f} to {score:.2f}, by more than {self.max_iou_drop:g}"
        if max(area, earlier) > self.max_area_change * min(area, earlier):
            return f"the area changed from {earlier} to {area} pixels, more than {self.max_area_change:g} times"
        overlap = float((mask & before).sum() / (mask | before).sum())
        if overlap < self.min_overlap:
            return f"the overlap {overlap:.2f} with the frame before is below {self.min_overlap:g}"
        return ""


@dataclass(frozen=True)
class FrameResult:
    """The objects in one frame; those that were lost earlier are None.

    Attributes:
        frame: its number.
        rles: masks as COCO run lengths, N; None where an object is not (any more) followed.
        scores: (N,) predicted IoU, NaN where there is no mask.
        areas: (N,) pixels, 0 where there is no mask.
        lost: number of an object (from 0) to the reason, for those lost in this very frame.
        prompted: whether this is the frame with the prompts.
    """

    frame: int
    rles: tuple[RLE | None, ...]
    scores: NDArray[np.float32]
    areas: NDArray[np.int64]
    lost: dict[int, str] = field(default_factory=dict)
    prompted: bool = False

    def masks(self, height: int, width: int) -> NDArray[np.bool_]:
        """Return the masks (N, height, width), empty where there is none."""
        out = np.zeros((len(self.rles), height, width), bool)
        for row, rle in enumerate(self.rles):
            if rle is not None:
                out[row] = decode_mask(rle)
        return out


@dataclass
class _Track:
    """What is known of one object: its mask in the frame before, the logits to ask with, and all scores so far."""

    mask: NDArray[np.bool_]
    logits: Any
    scores: list[float]


def propagate(
    model: UltraSam,
    scan: Scan,
    frame: int,
    prompts: Sequence[Prompt],
    *,
    direction: str = "both",
    rule: LossRule | None = None,
    margin: float = 0.1,
    mask_prompt: bool | None = None,
    clip: bool = True,
) -> Iterator[FrameResult]:
    """Follow objects through a scan.

    Args:
        model: the network.
        scan: a cine loop or a volume.
        frame: the prompted frame, from 0.
        prompts: one an object, in pixels of that frame.
        direction: "both", "forward" or "backward".
        rule: when an object counts as lost.
        margin: the box of the mask before grows by this part of its width and height on each side, by at least two
            pixels.
        mask_prompt: also pass the logits of the mask before. None: where the weights were trained with mask prompts
            (weights of a single pass, such as MedSAM's, were not).
        clip: masks stay in the field of view of the prompted frame.

    Yields:
        the prompted frame, then the frames after it in order, then those before it, nearest first. A direction ends
        with the frame in which its last object was lost.

    Raises:
        PromptError: no prompt, one that does not fit, or nothing found in the prompted frame.
        DataError: there is no such frame, or one cannot be read.
        ConfigError: another direction, or a margin below 0.
    """
    if direction not in DIRECTIONS:
        raise ConfigError(f"the direction must be one of {', '.join(DIRECTIONS)}, found {direction!r}")
    if not 0 <= margin < math.inf:
        raise ConfigError(f"the margin must be at least 0, found {margin:g}")
    if not prompts:
        raise PromptError("following needs the prompt of at least one object, found none; give a box or points")
    follower = _Follower(model, scan, rule or LossRule(), margin, _wants_masks(model, mask_prompt))
    return follower.run(frame, list(prompts), direction, clip)


def _wants_masks(model: UltraSam, asked: bool | None) -> bool:
    return bool(model.mask_prompt and tuple(model.passes) != ("single",)) if asked is None else asked


class _Follower:
    """The state of one call of ``propagate``."""

    def __init__(self, model: UltraSam, scan: Scan, rule: LossRule, margin: float, mask_prompt: bool) -> None:
        self.model, self.scan, self.rule, self.margin = model, scan, rule, margin
        self.mask_prompt = mask_prompt
        self.field: NDArray[np.bool_] | None = None

    def run(self, frame: int, prompts: list[Prompt], direction: str, clip: bool) -> Iterator[FrameResult]:
        session = self.model.session(self.scan.read(frame), spacing=self.scan.spacing, name=self.scan.name, clip=clip)
        first = session.predict(prompts=prompts)
        self.field = session.field
        for number, mask in enumerate(first.masks, 1):
            if not mask.any():
                raise PromptError(
                    f"nothing was found for object {number} in frame {frame} of {self.scan.name}, so it cannot be "
                    "followed; give another prompt or frame"
                )
        # Only run lengths and logits are kept for the second direction.
        rles, logits = [encode_mask(mask) for mask in first.masks], first.logits
        scores = np.array(first.scores, np.float32)
        yield FrameResult(frame, tuple(rles), scores, first.masks.sum(axis=(1, 2)), prompted=True)
        del session, first
        ways = [self._forward(frame)] if direction in ("both", "forward") else []
        ways += [self._backward(frame)] if direction in ("both", "backward") else []
        for way in ways:
            tracks: list[_Track | None] = [
                _Track(decode_mask(rle), row, [float(score)])
                for rle, row, score in zip(rles, logits, scores, strict=True)
            ]
            for number, image in way:
                yield self._step(number, image, tracks)
                if not any(tracks):
                    break

    def _forward(self, frame: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        yield from enumerate(self.scan.iterate(frame + 1), frame + 1)

    def _backward(self, frame: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield the frames before one, last first, read in blocks of bounded size."""
        height, width = self.scan.size
        block = max(1, BLOCK_BYTES // (3 * height * width))
        for stop in range(frame, 0, -block):
            start = max(0, stop - block)
            images = [self.scan.read(number) for number in range(start, stop)]
            while images:
                yield start + len(images) - 1, images.pop()

    def _step(self, number: int, image: NDArray[np.uint8], tracks: list[_Track | None]) -> FrameResult:
        """Ask one frame for all objects that are still followed, and update them."""
        asked = [row for row, track in enumerate(tracks) if track is not None]
        # The field of view is that of the prompted frame: found anew, it would move with the picture's content.
        session = self.model.session(image, spacing=self.scan.spacing, name=self.scan.name, clip=False)
        answer: Masks = session.predict(prompts=[self._prompt(tracks[row]) for row in asked])
        rles: list[RLE | None] = [None] * len(tracks)
        scores = np.full(len(tracks), np.nan, np.float32)
        areas = np.zeros(len(tracks), np.int64)
        lost: dict[int, str] = {}
        for place, row in enumerate(asked):
            mask = answer.masks[place] if self.field is None else answer.masks[place] & self.field
            track = tracks[row]
            assert track is not None
            score = float(answer.scores[place])
            reason = self.rule.reason(mask, track.mask, score, float(np.median(track.scores)))
            if reason:
                lost[row], tracks[row] = reason, None
                continue
            rles[row], scores[row], areas[row] = encode_mask(mask), score, mask.sum()
            track.mask, track.logits = mask.copy(), answer.logits[place].clone()
            track.scores.append(score)
        return FrameResult(number, tuple(rles), scores, areas, lost)

    def _prompt(self, track: _Track | None) -> Prompt:
        """Return what the next frame is asked with."""
        assert track is not None
        box = box_with_margin(track.mask, self.margin)
        return Prompt(box=box, logits=track.logits if self.mask_prompt else None)


def box_with_margin(mask: NDArray[np.bool_], margin: float) -> NDArray[np.float32]:
    """Return the half-open box (4,) of a mask (H, W), grown on each side within the image; see ``propagate``."""
    found = extent_of(mask)
    assert found is not None  # An object without a mask is lost.
    x1, y1, x2, y2 = found
    across, down = max(2.0, margin * (x2 - x1)), max(2.0, margin * (y2 - y1))
    height, width = mask.shape
    grown = (max(x1 - across, 0), max(y1 - down, 0), min(x2 + across, width), min(y2 + down, height))
    return np.array(grown, np.float32)


def describe(results: Sequence[FrameResult]) -> list[str]:
    """Return one line an object: in which frames it was followed, and where and why it was lost."""
    lines = []
    for row in range(len(results[0].rles) if results else 0):
        seen = sorted(result.frame for result in results if result.rles[row] is not None)
        lost = [f"lost in frame {result.frame}: {result.lost[row]}" for result in results if row in result.lost]
        frames = f"{len(seen)} frames, {seen[0]} to {seen[-1]}"
        lines.append("; ".join([f"object {row + 1}: {frames}", *sorted(lost)]))
    return lines
