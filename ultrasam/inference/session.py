"""A session: one encoded image, any number of prompts, and objects that are corrected click by click."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ultrasam.errors import PromptError
from ultrasam.geometry.transform import SquareTransform
from ultrasam.inference.decoding import Decoder
from ultrasam.inference.enlarge import Enlarger
from ultrasam.inference.field import check_not_blocked, find_field, find_ink
from ultrasam.inference.masks import Masks
from ultrasam.inference.objects import ObjectState
from ultrasam.inference.passes import run_passes
from ultrasam.inference.prompt import Prompt, check_prompt
from ultrasam.modeling.prompt_encoder import Prompts

if TYPE_CHECKING:
    from ultrasam.inference.model import Embedding, UltraSam

# A mask's share of a low-resolution cell becomes logits of at most this size: those of a probability of 0.999.
MASK_LOGIT = 6.9
# Logits of an object that has no prompt.
NOTHING = -32.0


class Session:
    """One encoded image. Made by ``UltraSam.open`` or ``UltraSam.session``.

    The field of view is looked for in the image. Text and borders outside of it never become mask, and a positive point
    on them or a box around them is refused (``ultrasam.inference.field``); ``clip=False`` switches that off.

    Attributes:
        image: (H, W, 3) uint8 RGB, the whole image.
        embedding: of the image, or of the cropped part.
        transform: from the (cropped) image to the network's square.
        origin: (x, y) of the cropped part in the image.
        spacing: mm along (rows, columns), or None.
        name: of the image.
        objects: states of the objects being marked, in the order of ``segment``'s masks.
    """

    def __init__(
        self,
        model: UltraSam,
        image: NDArray[np.uint8],
        embedding: Embedding,
        *,
        spacing: tuple[float, float] | None = None,
        name: str = "",
        clip: bool = True,
        origin: tuple[int, int] = (0, 0),
    ) -> None:
        self.model = model
        self.image = image
        self.embedding = embedding
        self.spacing = spacing
        self.name = name
        self.origin = origin
        self.objects: list[ObjectState] = []
        self.decoder = Decoder(model.sam, embedding.features)
        self._limits: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None
        self._searched = not clip

    @property
    def transform(self) -> SquareTransform:
        """From the (cropped) image to the network's square."""
        return self.embedding.transform

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the whole image in pixels."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def window(self) -> tuple[int, int, int, int]:
        """The encoded part x1, y1, x2, y2 of the image, half-open."""
        (x, y), (height, width) = self.origin, self.transform.original_size
        return x, y, x + width, y + height

    @property
    def limits(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
        """The field of view and what is never mask, both (H, W) bool; None where there is no such limit."""
        if not self._searched:
            field = find_field(self.image)
            self._limits = None if field is None else (field, find_ink(self.image, field))
            self._searched = True
        return self._limits

    @property
    def field(self) -> NDArray[np.bool_] | None:
        """The field of view (H, W) bool, or None where it is the whole image or was not looked for."""
        return None if self.limits is None else self.limits[0]

    def block(self, field: NDArray[np.bool_], blocked: NDArray[np.bool_]) -> None:
        """Set the field of view and what is never mask, both (H, W) bool, in place of what is found in the image."""
        self._limits, self._searched = (field, blocked), True

    def copy(self) -> Session:
        """Return a session with objects of its own; image, embedding and what was made of it are shared."""
        other = copy.copy(self)
        other.objects = [state.copy() for state in self.objects]
        return other

    def predict(
        self,
        *,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        prompts: Sequence[Prompt] | None = None,
        previous: Masks | None = None,
    ) -> Masks:
        """Segment one object, or several at once, in pixels of the image.

        Args:
            points: (P, 2) x, y, all of one object.
            labels: (P,) 1 inside of the object, 0 outside; all inside where not given.
            box: (4,) x1, y1, x2, y2, half-open; with points it is the same object's.
            boxes: (N, 4), one object each.
            mask: (H, W) bool of the image, a rough mask to start from; (N, H, W) with ``boxes``.
            prompts: objects of any kinds; instead of all the above.
            previous: an earlier answer to the same objects, which these prompts correct.

        Raises:
            PromptError: something does not fit the image, or the arguments each other; nothing was computed.
        """
        if prompts is None:
            prompts = self._prompts_of(points, labels, box, boxes, mask)
        elif any(value is not None for value in (points, labels, box, boxes, mask)):
            raise PromptError("prompts= stands alone; put points, box and mask into its Prompt objects")
        if previous is not None:
            prompts = _corrected(prompts, previous)
        for prompt in prompts:
            self.check(prompt)
        logits, scores = self._decode(prompts)
        return self.masks_of(logits, scores, prompts)

    def add_object(self) -> ObjectState:
        """Add an object to ``objects``, with nothing marked yet."""
        self.objects.append(ObjectState(self.check))
        return self.objects[-1]

    def segment(self) -> Masks:
        """Return the masks of ``objects`` in their order; only what has changed is computed, in one go.

        An object without a prompt has an empty mask and the score 0.
        """
        asked = [state for state in self.objects if state.step is not None and state.logits is None and _given(state)]
        if asked:
            logits, scores = self._decode([state.prompt for state in asked])
            for state, row, score in zip(asked, logits, scores, strict=True):
                state.answered(row.clone(), float(score))
        side = self.model.sam.low_res_size
        rows, scores = torch.full((len(self.objects), side, side), NOTHING), np.zeros(len(self.objects), np.float32)
        for number, state in enumerate(self.objects):
            if state.step is not None and state.step.logits is not None:
                rows[number], scores[number] = state.step.logits, state.step.score
        return self.masks_of(rows, scores, [state.prompt for state in self.objects])

    def check(self, prompt: Prompt) -> None:
        """Refuse a prompt that does not fit this image.

        Raises:
            PromptError: see ``check_prompt``; also on text outside of the field of view, in what was cropped away, and
                logits of another size.
        """
        check_prompt(prompt, *self.size)
        if self.limits is not None:
            check_not_blocked(prompt, *self.limits)
        x1, y1, x2, y2 = self.window
        if prompt.points is not None and (x1, y1, x2, y2) != (0, 0, self.size[1], self.size[0]):
            inside = ((prompt.points >= (x1, y1)) & (prompt.points < (x2, y2))).all(axis=1)
            if not inside.all():
                x, y = prompt.points[int(np.argmin(inside))]
                raise PromptError(
                    f"the point (x, y) = ({x:g}, {y:g}) lies in what was cropped away (kept are x {x1} to {x2 - 1}, "
                    f"y {y1} to {y2 - 1}); open the image without crop"
                )
        side = self.model.sam.low_res_size
        if prompt.logits is not None and tuple(prompt.logits.shape) != (side, side):
            raise PromptError(
                f"logits of this model are {side} x {side}, found {tuple(prompt.logits.shape)}; pass those of an "
                "answer of this session, or the mask itself as mask="
            )

    def logits_of_mask(self, mask: ArrayLike) -> Tensor:
        """Return a mask prompt (h, w) float32 of a mask of the whole image, (H, W) bool or of two values.

        Raises:
            PromptError: of another size, of more than two values, or with nothing in the encoded part.
        """
        pixels = np.asarray(mask)
        if pixels.shape != self.size:
            raise PromptError(
                f"the mask has the shape {pixels.shape}, but the image is {self.size} (height, width); they must be "
                "equal"
            )
        if pixels.dtype != bool:
            if not np.isin(pixels, (0, pixels.max())).all() or pixels.max() not in (0, 1, 255):
                raise PromptError("a mask prompt holds 0 and 1 (or 255), found other values; pass one object's mask")
            pixels = pixels > 0
        x1, y1, x2, y2 = self.window
        if not pixels[y1:y2, x1:x2].any():
            raise PromptError("the mask prompt is empty; leave it out, or give a point or a box")
        (rows, columns), square = self.transform.resized_size, self.transform.square
        part = np.ascontiguousarray(pixels[y1:y2, x1:x2], np.float32)
        share = torch.zeros(1, square, square)
        # Areas are kept, where the nearest pixel would lose thin parts.
        share[0, :rows, :columns] = torch.from_numpy(cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA))
        share = torch.nn.functional.adaptive_avg_pool2d(share, self.model.sam.low_res_size)[0]
        return torch.logit(share.double(), 1e-6).clamp(-MASK_LOGIT, MASK_LOGIT).float()

    def masks_of(
        self, logits: Tensor, scores: NDArray[np.float32], prompts: Sequence[Prompt] = ()
    ) -> Masks:
        """Make an answer of low-resolution logits (N, h, w) float32 and scores (N,)."""
        blocked = None if self.limits is None else self.limits[1]
        masks, boxes = Enlarger(self.transform, self.origin, self.size, blocked).masks(logits)
        return Masks(masks, scores, logits.cpu(), boxes, self.image, self.spacing, self.name, list(prompts))

    def square_prompts(self, prompts: Sequence[Prompt]) -> Prompts:
        """Lay prompts of the whole image out as tokens of the network's square."""
        offset = np.array(self.origin, np.float32)
        x1, y1, x2, y2 = self.window
        points: list[Tensor | None] = []
        labels: list[Tensor | None] = []
        boxes: list[Tensor | None] = []
        for prompt in prompts:
            xy = None if prompt.points is None else self.transform.points(prompt.points - offset)
            points.append(None if xy is None else self._tensor(xy))
            labels.append(None if prompt.labels is None else self._tensor(prompt.labels))
            if prompt.box is None:
                boxes.append(None)
            else:
                # A box may reach into what was cropped away; what is left of it is meant.
                box = np.clip(prompt.box, (x1, y1, x1, y1), (x2, y2, x2, y2)).astype(np.float32)
                boxes.append(self._tensor(self.transform.boxes(box - np.tile(offset, 2))))
        given = [prompt.logits is not None for prompt in prompts]
        masks = has_mask = None
        if any(given):
            side, device = self.model.sam.low_res_size, self.model.device
            rows = [torch.zeros(side, side) if p.logits is None else p.logits.float().cpu() for p in prompts]
            masks = torch.stack(rows)[:, None].to(device)
            has_mask = None if all(given) else torch.tensor(given, device=device)
        index = torch.zeros(len(prompts), dtype=torch.long)
        return Prompts.build(points, labels, boxes, index, masks, has_mask, self.model.device)

    def _decode(self, prompts: Sequence[Prompt]) -> tuple[Tensor, NDArray[np.float32]]:
        """Return logits (N, h, w) on the model's device and scores (N,)."""
        model = self.model
        logits, scores = run_passes(self.decoder, self.square_prompts(prompts), model.passes, model.mask_prompt)
        return logits, scores.cpu().numpy().astype(np.float32)

    def _prompts_of(self, points: Any, labels: Any, box: Any, boxes: Any, mask: Any) -> list[Prompt]:
        if boxes is None:
            logits = None if mask is None else self.logits_of_mask(mask)
            return [Prompt.of(points, labels, box, logits)]
        if points is not None or labels is not None or box is not None:
            raise PromptError("boxes= are objects of their own; use prompts= for objects of several kinds")
        rows = Prompt.of(box=boxes).box
        assert rows is not None
        if rows.ndim != 2 or rows.shape[1] != 4:
            raise PromptError(f"boxes have the shape (objects, 4), x1, y1, x2, y2, found the shape {rows.shape}")
        if mask is None:
            return [Prompt(box=row) for row in rows]
        if np.ndim(mask) != 3 or len(np.asarray(mask)) != len(rows):
            raise PromptError(f"{len(rows)} boxes need {len(rows)} masks (N, H, W), found the shape {np.shape(mask)}")
        masks = [self.logits_of_mask(one) for one in np.asarray(mask)]
        return [Prompt(box=row, logits=logits) for row, logits in zip(rows, masks, strict=True)]

    @staticmethod
    def _tensor(values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values))


def _given(state: ObjectState) -> bool:
    prompt = state.prompt
    return prompt.points is not None or prompt.box is not None or prompt.logits is not None


def _corrected(prompts: Sequence[Prompt], previous: Masks) -> list[Prompt]:
    """Return prompts that start from the answer before."""
    if len(previous) != len(prompts):
        raise PromptError(
            f"previous has {len(previous)} masks, but there are {len(prompts)} objects to correct; take those of "
            "interest, such as previous[0]"
        )
    if any(prompt.logits is not None for prompt in prompts):
        raise PromptError("a mask prompt and previous= exclude each other; the logits of previous are a mask prompt")
    return [
        Prompt(prompt.points, prompt.labels, prompt.box, logits)
        for prompt, logits in zip(prompts, previous.logits, strict=True)
    ]
