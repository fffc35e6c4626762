"""A teacher: a frozen network whose answers to the same prompts are soft targets beside the annotations.

Weights that learn a new prompt drift from what they knew. The teacher's answers (Hinton et al. 2015, distillation) keep
them there: UltraSam-lite learns points from annotations and keeps LiteMedSAM's boxes from LiteMedSAM itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ultrasam.checkpoints import load_checkpoint, resolve_weights
from ultrasam.errors import ConfigError
from ultrasam.modeling.build import build_sam
from ultrasam.modeling.prompt_encoder import CORNER_A, Prompts
from ultrasam.modeling.sam import Sam
from ultrasam.models.embedding_cache import weights_hash

PROMPTS = ("box", "all")


class Teacher:
    """Answers prompts with its single mask (token 0). No module, so its weights are in no checkpoint of the student.

    Args:
        sam: the network, with weights; its input is the student's.
        weight: of the loss.
        prompts: which objects it teaches: "box", those prompted with one, or "all".
    """

    def __init__(self, sam: Sam, weight: float = 1.0, prompts: str = "box") -> None:
        self.sam = sam.eval().requires_grad_(False)
        self.weight = weight
        self.prompts = prompts
        self.shares: bool | None = None

    def forget(self) -> None:
        """Compare the encoders again at the next step, because the student's weights were loaded."""
        self.shares = None

    def shares_stages(self, student: Sam, stages: int) -> bool:
        """Return whether the first ``stages`` of both encoders are equal, so that the student's features serve."""
        if self.shares is None:
            encoders = (student.image_encoder, self.sam.image_encoder)
            own, other = (weights_hash(encoder, encoder.stages()[stages:]) for encoder in encoders)
            self.shares = own == other
        return self.shares

    @torch.no_grad()
    def targets(
        self, images: Sequence[Tensor], features: Tensor | None, student: Sam, stages: int, prompts: Prompts, chunk: int
    ) -> Tensor:
        """Return the teacher's probabilities (N, 4h, 4w) float32 of N prompts.

        Args:
            images: resized, (3, h, w) uint8.
            features: what the first ``stages`` of the student's encoder make of them, or None.
            student: the network that learns.
            stages: number of its frozen stages.
            prompts: of the N objects.
            chunk: objects decoded at a time.
        """
        self.sam.to(images[0].device)
        if features is not None and self.shares_stages(student, stages):
            embeddings = self.sam.image_encoder.run(features, stages)
        else:
            embeddings = self.sam.encode(self.sam.preprocessing.batch(list(images)))
        logits, _ = self.sam.decode(embeddings, prompts, False, chunk)
        return logits[:, 0].float().sigmoid()

    def taught(self, prompts: Prompts) -> Tensor:
        """Return the rows of the objects that the teacher teaches."""
        if self.prompts == "all":
            return torch.arange(len(prompts), device=prompts.labels.device)
        return torch.nonzero((prompts.labels == CORNER_A).any(dim=1))[:, 0]


def build_teacher(
    options: Mapping[str, Any], arch: str, image_size: int | None, preprocessing: dict[str, Any] | None
) -> Teacher:
    """Build and load a teacher.

    Args:
        options: ``weights`` (a file or a name) and, where wanted, ``weight`` and ``prompts``, see ``Teacher``.
        arch: architecture, the student's.
        image_size: the student's.
        preprocessing: the student's.

    Raises:
        ConfigError: an option is missing, unknown or has no meaning.
        CheckpointError: the weights do not fit.
    """
    unknown = sorted(set(options) - {"weights", "weight", "prompts"})
    if unknown or "weights" not in options:
        problem = f"has no option {unknown[0]!r}" if unknown else "needs weights"
        raise ConfigError(f"teacher {problem}; it takes weights, weight and prompts, got {dict(options)}")
    weight, prompts = options.get("weight", 1.0), options.get("prompts", "box")
    if not isinstance(weight, int | float) or not weight > 0:
        raise ConfigError(f"teacher.weight must be a number above 0, got {weight!r}; leave teacher out for none")
    if prompts not in PROMPTS:
        raise ConfigError(f"teacher.prompts must be 'box' or 'all', got {prompts!r}")
    sam = build_sam(arch, image_size, preprocessing)
    load_checkpoint(sam, resolve_weights(options["weights"]))
    return Teacher(sam, float(weight), prompts)


def teacher_loss(logits: Tensor, probabilities: Tensor) -> Tensor:
    """Return each object's cross-entropy of logits (N, h, w) and soft targets (N, h, w), mean over its pixels: (N,)."""
    return F.binary_cross_entropy_with_logits(logits.float(), probabilities, reduction="none").flatten(1).mean(1)
