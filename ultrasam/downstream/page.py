"""The page with a prompted classifier: every clicked object gets its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ultrasam.downstream.checkpoint import NAMES, rebuild, recognise, require_no_config
from ultrasam.errors import ConfigError
from ultrasam.web.engine import Box, Engine
from ultrasam.web.study import Mark, Point

if TYPE_CHECKING:
    from torch import Tensor

    from ultrasam.downstream.prompted import PromptedUltraSam
    from ultrasam.inference.session import Session


class ClassifyingEngine(Engine):
    """Predicts masks and, with them, the classes of the objects.

    Args:
        model: the prompted classifier.
        cache_bytes: memory of the encoded frames that are kept.
    """

    def __init__(self, model: PromptedUltraSam, cache_bytes: int) -> None:
        super().__init__(model, cache_bytes)
        self.classifier = model

    def predict(self, session: Session, points: Sequence[Point], box: Box | None, logits: Tensor | None) -> Mark:
        """Predict one object; see ``Engine.predict``. The mark's ``outcome`` is its class."""
        from ultrasam.inference import Prompt

        mark = super().predict(session, points, box, logits)
        prompt = Prompt(
            points=np.array([point[:2] for point in points], np.float32) if points else None,
            labels=np.array([point[2] for point in points], np.int64) if points else None,
            box=None if box is None else np.array(box, np.float32),
        )
        with self._decoding:
            found = self.classifier.classify(session, [prompt])[0]
        return replace(mark, outcome={"name": found.name, "probability": found.probability})


def prompted_model(weights: str | Path | None, config: str | None, device: str | None) -> PromptedUltraSam | None:
    """Return the prompted classifier of a checkpoint, None for weights of segmentation.

    Raises:
        ConfigError: a model of another task, which answers no click.
        CheckpointError: see ``rebuild``.
    """
    checkpoint = recognise(weights)
    if checkpoint is None:
        require_no_config(config)
        return None
    if checkpoint.task != "prompted-classify":
        raise ConfigError(f"{checkpoint.path} is {NAMES[checkpoint.task]} and answers no click; run "
                          "ultrasam predict with it")  # fmt: skip
    from ultrasam.downstream.prompted import PromptedUltraSam

    return PromptedUltraSam(rebuild(checkpoint, config, device))
