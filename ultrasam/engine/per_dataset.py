"""Losses by data set in the log of a training, so that one sees which set is learned and which is drowned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.hooks import Hook, LoggerHook
from mmengine.registry import HOOKS
from torch import Tensor

from ultrasam.engine.distributed import gather_to_all
from ultrasam.errors import ConfigError
from ultrasam.modeling.losses import dice_loss, true_iou

# Data set to objects, sum of their Dice losses, sum of their IoU.
Sums = dict[str, tuple[int, float, float]]


class ObjectScores:
    """Dice loss and IoU of every object of some steps, by data set.

    Scores stay on the device until they are asked for, so that no step waits for the GPU.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.values: list[Tensor] = []

    @torch.no_grad()
    def __call__(self, samples: Sequence[Any], logits: Tensor, predicted_iou: Tensor, targets: Tensor) -> None:
        """Note the objects of one step.

        Args:
            samples: B samples; their targets, joined, are the N objects.
            logits: (N, M, h, w) candidates of the last pass.
            predicted_iou: (N, M).
            targets: (N, h, w) bool.
        """
        if not len(targets):
            return
        for sample in samples:
            name = str(sample.get("dataset", None) or "not named")
            self.names += [name] * len(sample.gt_instances.targets)
        rows = torch.arange(len(targets), device=targets.device)
        iou = true_iou(logits, targets)
        # The loss is that of the candidate that is trained, the IoU that of the answer, as at test time.
        dice = dice_loss(logits[rows, iou.argmax(dim=1)], targets)
        answer = iou[rows, predicted_iou.argmax(dim=1)]
        self.values.append(torch.stack([dice, answer]))

    def take(self) -> Sums:
        """Return the sums of what was noted, and forget it."""
        found: Sums = {}
        if self.values:
            for name, dice, iou in zip(self.names, *torch.cat(self.values, dim=1).double().tolist(), strict=True):
                count, dices, ious = found.get(name, (0, 0.0, 0.0))
                found[name] = (count + 1, dices + dice, ious + iou)
        self.names, self.values = [], []
        return found


def joined(parts: Sequence[Sums]) -> Sums:
    """Add the sums of several processes, which need not have met the same data sets; by name."""
    found: Sums = {}
    for part in parts:
        for name, (count, dice, iou) in part.items():
            counts, dices, ious = found.get(name, (0, 0.0, 0.0))
            found[name] = (counts + count, dices + dice, ious + iou)
    return dict(sorted(found.items()))


@HOOKS.register_module()
class PerDatasetHook(Hook):
    """Writes mean Dice loss (last pass, unweighted) and IoU by data set, over the objects of all processes.

    One line of the log, and in scalars.json and TensorBoard ``by_data_set/<set>/dice_loss``, ``/iou``, ``/objects``;
    each is of the objects since the line before. A set that had none is left out. Training is not touched: scores are
    made of what the losses were, and processes meet once in ``interval`` steps.

    Args:
        interval: iterations between lines; None is that of ``LoggerHook``.
    """

    priority = "NORMAL"

    def __init__(self, interval: int | None = None) -> None:
        self.interval = interval
        self.scores = ObjectScores()

    def before_train(self, runner: Any) -> None:
        """Have the model tell its outcomes.

        Raises:
            ConfigError: it cannot.
        """
        model = runner.bare_model
        if not hasattr(model, "observer"):
            raise ConfigError(
                f"PerDatasetHook needs a model that tells the outcome of every object (UltraSamDetector), "
                f"{type(model).__name__} does not; remove it from custom_hooks"
            )
        model.observer = self.scores
        if self.interval is None:
            loggers = [hook for hook in runner.hooks if isinstance(hook, LoggerHook)]
            self.interval = loggers[0].interval if loggers else 50

    def after_train(self, runner: Any) -> None:
        """Let the model be."""
        runner.bare_model.observer = None

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Write what was noted since the last time."""
        if self.every_n_train_iters(runner, self.interval or 1):
            found = joined(gather_to_all(self.scores.take()))
            if found:
                runner.logger.info(line(found))
                runner.visualizer.add_scalars(scalars(found), step=runner.iter + 1)


def line(found: Sums) -> str:
    """Return the means as one line of the log."""
    parts = [f"{name} {dice / n:.3f}, {iou / n:.3f} ({n})" for name, (n, dice, iou) in found.items()]
    return f"By data set, Dice loss, IoU (objects): {'; '.join(parts)}"


def scalars(found: Mapping[str, tuple[int, float, float]]) -> dict[str, float]:
    """Return the means by the names that they have in TensorBoard."""
    rows: dict[str, float] = {}
    for name, (count, dice, iou) in found.items():
        rows |= {
            f"by_data_set/{name}/dice_loss": dice / count,
            f"by_data_set/{name}/iou": iou / count,
            f"by_data_set/{name}/objects": count,
        }
    return rows
