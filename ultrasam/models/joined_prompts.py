"""Prompts of a batch as one flat list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ultrasam.modeling.prompt_encoder import PADDING, Prompts


def join_prompts(samples: Sequence[Any], device: torch.device) -> Prompts:
    """Join the samples' prompt tokens into one flat list, with padding where they differ in number."""
    instances = [sample.prompt_instances for sample in samples]
    counts = torch.tensor([len(instance) for instance in instances])
    width = max((instance.labels.shape[1] for instance in instances if len(instance)), default=0)
    total = int(counts.sum())
    coords = torch.zeros(total, width, 2)
    labels = torch.full((total, width), PADDING, dtype=torch.long)
    row = 0
    for instance in instances:
        count = len(instance)
        if count:
            tokens = instance.labels.shape[1]
            coords[row : row + count, :tokens] = instance.coords.cpu()
            labels[row : row + count, :tokens] = instance.labels.cpu()
        row += count
    index = torch.arange(len(samples)).repeat_interleave(counts)
    return Prompts(coords.to(device), labels.to(device), index.to(device))
