"""What several processes must agree on so that their losses equal those of one."""

from __future__ import annotations

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn


def mean_over_processes(count: int, device: torch.device) -> Tensor:
    """Return the mean of a count over the processes, a float32 scalar.

    DDP averages gradients over processes; a sum divided by this mean becomes the mean over all objects.
    """
    value = torch.tensor(float(count), device=device)
    if get_world_size() > 1:
        all_reduce(value, "mean")
    return value


def zero_of(model: nn.Module, *outputs: Tensor) -> Tensor:
    """Return a zero that depends on everything of a model that trains, for a batch that has no loss.

    Every process must take part in a step. Weights of modules that are sharded (FSDP) are whole only while their module
    runs, so they are reached through what came of them.

    Args:
        model: the model.
        outputs: what its sharded modules led to.
    """
    plain = [p for p in model.parameters() if p.requires_grad and not hasattr(p, "full_tensor")]
    return 0 * torch.stack([value.sum() for value in [*outputs, *plain]]).sum()
