"""One opened file and what was marked in it, with undo and redo."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ultrasam.geometry.rle import RLE
from ultrasam.web.limits import Limits, WebError

if TYPE_CHECKING:
    from torch import Tensor

    from ultrasam.io.scan import Scan

NAME_LENGTH = 60
# Frames that were read last are shown and encoded, so they are kept for a moment.
_FRAME_BYTES = 32 << 20
Point = tuple[float, float, int]


@dataclass(frozen=True)
class Mark:
    """Prompts of one object on one frame, and their mask.

    Attributes:
        points: x, y in pixels and 1 (inside) or 0 (outside), in the order of the clicks.
        box: x1, y1, x2, y2 in pixels, half-open.
        rle: the mask of the whole frame.
        score: the IoU that the network expects.
        logits: low-resolution answer, float16 (1, h, w), which a correction starts from.
        measures: area and diameters, plain values for JSON.
        outcome: predicted class with probability of a prompted classifier, None where the model has none.
    """

    points: tuple[Point, ...]
    box: tuple[float, float, float, float] | None
    rle: RLE
    score: float
    logits: Tensor | None = field(repr=False, compare=False)
    measures: Mapping[str, Any] = field(default_factory=dict)
    outcome: Mapping[str, Any] | None = None

    @property
    def nbytes(self) -> int:
        """Memory that the mark takes, about."""
        logits = 0 if self.logits is None else self.logits.numel() * self.logits.element_size()
        return logits + len(self.rle["counts"]) + 600


@dataclass(frozen=True)
class Item:
    """One object of a file, through all frames; replaced as a whole by every change, so that undo is exact.

    Attributes:
        number: from 1; also its value in label images.
        name: given by the user.
        category: class text of the user, "" for none.
        marks: by frame.
    """

    number: int
    name: str
    category: str = ""
    marks: Mapping[int, Mark] = field(default_factory=dict)

    def with_mark(self, frame: int, mark: Mark) -> Item:
        """Return the object with another mark on a frame."""
        return replace(self, marks={**self.marks, frame: mark})


@dataclass(frozen=True)
class Step:
    """One change of one object; None stands for an object that does not exist."""

    frame: int
    before: Item | None
    after: Item | None


class Study:
    """An opened file.

    Args:
        key: the unguessable name of the file in the addresses of the server.
        scan: its frames.
        nbytes: memory that the file takes.
        limits: of the server.

    Attributes:
        lock: held while the objects change.
        closed: the file was closed and nothing may be kept for it any more.
        shown: the frame that was to be encoded last.
        clip: nothing outside of the field of view becomes mask.
    """

    def __init__(self, key: str, scan: Scan, nbytes: int, limits: Limits) -> None:
        self.key = key
        self.scan = scan
        self.nbytes = nbytes
        self.lock = threading.RLock()
        self.closed = False
        self.shown = 0
        self.clip = True
        self.used = time.monotonic()
        self._limits = limits
        self._reading = threading.Lock()
        self._frames: dict[int, NDArray[np.uint8]] = {}
        self._items: dict[int, Item] = {}
        self._undo: list[Step] = []
        self._redo: list[Step] = []

    def read(self, frame: int) -> NDArray[np.uint8]:
        """Return a frame uint8 (H, W, 3) RGB, not to be changed; one thread at a time reads the file.

        Raises:
            DataError: the frame is damaged.
        """
        with self._reading:
            if frame not in self._frames:
                pixels = self.scan.read(frame)
                while self._frames and sum(kept.nbytes for kept in self._frames.values()) > _FRAME_BYTES:
                    self._frames.pop(next(iter(self._frames)))
                self._frames[frame] = pixels
            return self._frames[frame]

    @property
    def items(self) -> list[Item]:
        """The objects, by number."""
        with self.lock:
            return [self._items[number] for number in sorted(self._items)]

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to take back."""
        return bool(self._undo)

    @property
    def can_redo(self) -> bool:
        """Whether a step was taken back that can be made again."""
        return bool(self._redo)

    @property
    def marks_nbytes(self) -> int:
        """Memory of the marks, those of steps that can be undone included."""
        # Without the lock, which is held while a mask is predicted; what the lists hold never changes.
        steps = [*list(self._undo), *list(self._redo)]
        items = [*list(self._items.values()), *(item for step in steps for item in (step.before, step.after) if item)]
        marks = {id(mark): mark.nbytes for item in items for mark in item.marks.values()}
        return sum(marks.values())

    def item(self, number: int) -> Item:
        """Return an object.

        Raises:
            WebError: there is none of that number.
        """
        if number not in self._items:
            raise WebError(404, f"There is no object {number} any more; choose another in the list.")
        return self._items[number]

    def new_item(self) -> Item:
        """Return an object that is not in the list yet.

        Raises:
            WebError: there are as many as allowed.
        """
        if len(self._items) >= self._limits.objects:
            raise WebError(409, f"There are {self._limits.objects} objects, no more fit in one file; delete one first.")
        # Numbers of objects that an undo can bring back are not given again.
        past = [item.number for step in self._undo for item in (step.before, step.after) if item is not None]
        number = 1 + max([*self._items, *past], default=0)
        return Item(number, f"Object {number}")

    def change(self, frame: int, before: Item | None, after: Item | None) -> None:
        """Replace ``before`` by ``after`` as one step that can be undone."""
        step = Step(frame, before, after)
        self._put(step.before, step.after)
        self._undo = [*self._undo, step][-self._limits.steps :]
        self._redo = []

    def undo(self) -> Step:
        """Take the last step back and return it.

        Raises:
            WebError: there is none.
        """
        if not self._undo:
            raise WebError(409, "There is nothing to undo.")
        step = self._undo.pop()
        self._put(step.after, step.before)
        self._redo.append(step)
        return step

    def redo(self) -> Step:
        """Make the step again that was taken back last, and return it.

        Raises:
            WebError: there is none.
        """
        if not self._redo:
            raise WebError(409, "There is nothing to redo.")
        step = self._redo.pop()
        self._put(step.before, step.after)
        self._undo.append(step)
        return step

    def _put(self, old: Item | None, new: Item | None) -> None:
        if old is not None:
            self._items.pop(old.number, None)
        if new is not None:
            self._items[new.number] = new
