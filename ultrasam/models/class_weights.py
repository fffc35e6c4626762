"""The classification loss with its class weights, and what models take from the training data before they train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from torch import Tensor, nn
from torch.nn import functional as F

from ultrasam.errors import ConfigError

FORMS = ("cross_entropy", "focal")
BALANCED = "balanced"


def balanced_weights(counts: Sequence[int]) -> Tensor:
    """Return weights inversely proportional to class counts, with mean 1 over the samples; 0 for a class without any.

    Args:
        counts: samples of each class.
    """
    known = torch.tensor([float(count) for count in counts])
    some = known > 0
    return torch.where(some, known.sum() / (some.sum() * known.clamp(min=1)), torch.zeros_like(known))


class ClassLoss(nn.Module):
    """Loss of N class scores: cross entropy or its focal form, with class weights and label smoothing.

    The loss is the weighted mean over the samples of all processes. ``weights`` is part of the state dict.

    Args:
        classes: number of classes K.
        form: "cross_entropy" or "focal" (softmax; ``gamma``).
        gamma: exponent of the focal form.
        label_smoothing: share of the target spread over all classes (cross entropy).
        class_weights: None for equal weights, "balanced" to take them from the training data, or K numbers.

    Raises:
        ConfigError: a value that does not exist or does not fit.
    """

    weights: Tensor

    def __init__(
        self,
        classes: int,
        form: str = "cross_entropy",
        gamma: float = 2.0,
        label_smoothing: float = 0.0,
        class_weights: str | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise ConfigError(f"form of the class loss must be one of {', '.join(map(repr, FORMS))}, got {form!r}")
        if not 0 <= label_smoothing < 1 or gamma < 0:
            raise ConfigError(
                f"label_smoothing must be in [0, 1) and gamma not negative, got {label_smoothing} and {gamma}"
            )
        if form == "focal" and label_smoothing:
            raise ConfigError(f"label_smoothing={label_smoothing} belongs to cross_entropy; set it to 0 for focal")
        self.form = form
        self.gamma = gamma
        self.label_smoothing = label_smoothing
        self.balanced = class_weights == BALANCED
        self.register_buffer("weights", first_weights(classes, class_weights))

    def learn_counts(self, counts: Sequence[int]) -> None:
        """Take the class counts of the training data; they matter where the weights are "balanced"."""
        if self.balanced:
            self.weights.copy_(balanced_weights(counts))

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of scores (N, K) for labels (N,), a float32 scalar; 0 for no samples.

        Raises:
            ConfigError: the weights are "balanced" and no training data were seen.
        """
        if bool(self.weights.isnan().any()):
            raise ConfigError(
                "class_weights='balanced' are taken from the training data by LearnFromDataHook; add it to custom_hooks"
            )
        scores = scores.float()
        weight = self.weights[labels]
        total = weight.sum()
        if get_world_size() > 1:
            all_reduce(total, "mean")
        normalizer = total.clamp(min=1e-8)
        if self.form == "focal":
            log = scores.log_softmax(dim=1).gather(1, labels[:, None])[:, 0]
            return (weight * -log * (1 - log.exp()).pow(self.gamma)).sum() / normalizer
        each = F.cross_entropy(scores, labels, reduction="none", label_smoothing=self.label_smoothing)
        return (weight * each).sum() / normalizer


def first_weights(classes: int, wanted: str | Sequence[float] | None) -> Tensor:
    """Return the weights that a configuration names: (K,) float32, NaN where the data decide.

    Raises:
        ConfigError: another word than "balanced", another number of weights, or none that counts.
    """
    if wanted is None:
        return torch.ones(classes)
    if wanted == BALANCED:
        return torch.full((classes,), float("nan"))
    numbers = [] if isinstance(wanted, str) else [float(value) for value in wanted]
    if len(numbers) != classes or min(numbers) < 0 or not 0 < sum(numbers) < float("inf"):
        raise ConfigError(
            f"class_weights must be None, {BALANCED!r} or {classes} numbers from 0, not all 0, got {wanted!r}"
        )
    return torch.tensor(numbers)


def check_classes(found: Sequence[str], expected: Sequence[str], what: str) -> None:
    """Refuse data whose classes, or their order, are not those of the model.

    Raises:
        ConfigError: names both.
    """
    if list(found) != list(expected):
        raise ConfigError(
            f"the model has the classes {list(expected)}, {what} has {list(found)}; give model and data the same "
            "classes in the same order"
        )


@HOOKS.register_module()
class LearnFromDataHook(Hook):
    """Let the model take what it needs from the training data: class counts, or mean and deviation of values.

    Calls ``model.learn_from(dataset)`` before the first step. What is taken depends on the data alone and is part of
    the checkpoint.
    """

    def before_train(self, runner: Any) -> None:
        """Hand the training data to the model."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model.learn_from(runner.train_dataloader.dataset)
