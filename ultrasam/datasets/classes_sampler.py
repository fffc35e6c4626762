"""Sampling that shows every class equally often."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.registry import DATA_SAMPLERS

from ultrasam.engine.sampling import ResumableInfiniteSampler
from ultrasam.errors import ConfigError


@DATA_SAMPLERS.register_module()
class BalancedClassSampler(ResumableInfiniteSampler):
    """Draw samples so that all classes that have any are drawn equally often on average, with replacement.

    A sample's weight is the mean over its objects of one over the number of objects of their class; a sample without
    objects is drawn as often as one of mean weight. Resumable like its parent.

    Args:
        dataset: with ``sample_labels()``.
        shuffle: must be True.
        seed: see the parent.

    Raises:
        ConfigError: the dataset has no classes, or ``shuffle`` is False.
    """

    def __init__(self, dataset: Any, shuffle: bool = True, seed: int | None = None) -> None:
        super().__init__(dataset, shuffle, seed)
        if not shuffle:
            raise ConfigError("BalancedClassSampler draws at random; use ResumableInfiniteSampler without shuffle")
        try:
            labels = dataset.sample_labels()
        except AttributeError as error:
            raise ConfigError(
                "BalancedClassSampler needs a dataset with classes (ClassDataset, PromptedClassDataset)"
            ) from error
        self.weights = balanced_sample_weights(labels)

    def order(self, number: int) -> torch.Tensor:
        """Return the samples of one pass, drawn with replacement."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + number) % 2**63)
        return torch.multinomial(self.weights, self.size, replacement=True, generator=generator)


def balanced_sample_weights(labels: list[list[int]]) -> torch.Tensor:
    """Return the weight of each sample: (S,) float64, positive.

    Args:
        labels: of the objects of each sample.
    """
    counts: dict[int, int] = {}
    for row in labels:
        for label in row:
            counts[label] = counts.get(label, 0) + 1
    known = [sum(1 / counts[label] for label in row) / len(row) if row else 0.0 for row in labels]
    some = [value for value in known if value]
    mean = sum(some) / len(some) if some else 1.0
    return torch.tensor([value or mean for value in known], dtype=torch.float64)
