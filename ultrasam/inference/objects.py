"""The state of one object while it is being marked: clicks, box, and every step back and forth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from ultrasam.inference.prompt import Prompt

# Steps that can be undone; each keeps low-resolution logits of up to 256 KB.
HISTORY = 100


@dataclass(frozen=True, eq=False)
class Step:
    """The object after one change.

    Attributes:
        prompt: all clicks and the box so far; its logits are the answer before, which the change corrects.
        logits: (h, w) answer to this prompt, None until it was asked for.
        score: predicted IoU of that answer.
    """

    prompt: Prompt
    logits: Tensor | None = None
    score: float = 0.0


class ObjectState:
    """One object of a session. Each change is a step; undo and redo move between steps and keep their answers.

    A click on an object that has an answer corrects it: the logits of that answer go with the prompt. A new box or mask
    starts afresh, since it says by itself where the object is.

    Args:
        check: raises PromptError for a prompt that does not fit the session's image.
    """

    def __init__(self, check: Callable[[Prompt], None]) -> None:
        self._check = check
        self._steps: list[Step] = []
        self._done = 0

    @property
    def step(self) -> Step | None:
        """The present step, None where nothing is marked yet."""
        return self._steps[self._done - 1] if self._done else None

    @property
    def prompt(self) -> Prompt:
        """The present prompt; an empty one where nothing is marked yet."""
        return self.step.prompt if self.step is not None else Prompt()

    @property
    def logits(self) -> Tensor | None:
        """The present answer, None where there is none yet."""
        return None if self.step is None else self.step.logits

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to take back."""
        return self._done > 0

    @property
    def can_redo(self) -> bool:
        """Whether a step was taken back."""
        return self._done < len(self._steps)

    def add_point(self, x: float, y: float, label: int = 1) -> None:
        """Add a click in pixels of the image, label 1 inside of the object and 0 outside.

        Raises:
            PromptError: it does not fit the image, or is negative with nothing to correct; nothing has changed then.
        """
        before, added = self.prompt, Prompt.of([[x, y]], [label])
        assert added.points is not None and added.labels is not None
        if before.points is not None and before.labels is not None:
            points = np.concatenate([before.points, added.points])
            labels = np.concatenate([before.labels, added.labels])
        else:
            points, labels = added.points, added.labels
        # Without an answer yet, what the step before was to correct is still what this one corrects.
        logits = self.logits if self.logits is not None else before.logits
        self._take(Prompt(points, labels, before.box, logits))

    def set_box(self, box: ArrayLike | None) -> None:
        """Set, replace or (None) remove the box x1, y1, x2, y2 in pixels of the image; clicks stay.

        Raises:
            PromptError: it does not fit the image; nothing has changed then.
        """
        before = self.prompt
        self._take(Prompt(before.points, before.labels, Prompt.of(box=box).box))

    def set_logits(self, logits: Tensor) -> None:
        """Start from low-resolution logits (h, w), of an earlier answer or a mask; clicks and box stay.

        Raises:
            PromptError: they are of another size; nothing has changed then.
        """
        before = self.prompt
        self._take(Prompt(before.points, before.labels, before.box, logits))

    def answered(self, logits: Tensor, score: float) -> None:
        """Keep the answer to the present prompt."""
        assert self.step is not None
        self._steps[self._done - 1] = replace(self.step, logits=logits, score=score)

    def undo(self) -> bool:
        """Take the last step back; False where there is none."""
        if not self.can_undo:
            return False
        self._done -= 1
        return True

    def redo(self) -> bool:
        """Repeat the step that was taken back last; False where there is none."""
        if not self.can_redo:
            return False
        self._done += 1
        return True

    def copy(self) -> ObjectState:
        """Return a state that changes on its own; steps are shared, they never change."""
        other = ObjectState(self._check)
        other._steps, other._done = list(self._steps), self._done
        return other

    def _take(self, prompt: Prompt) -> None:
        empty = prompt.points is None and prompt.box is None and prompt.logits is None
        if not empty or self.step is None:
            self._check(prompt)
        self._steps = [*self._steps[: self._done], Step(prompt)][-HISTORY:]
        self._done = len(self._steps)
