"""What several processes must agree on so that their losses equal those of one."""

from __future__ import annotations

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor


def mean_over_processes(count: int, device: torch.device) -> Tensor:
    """Return the mean of a count over the processes, a float32 scalar.

    DDP averages gradients over processes; a sum divided by this mean becomes the mean over all objects.
    """
    value = torch.tensor(float(count), device=device)
    if get_world_size() > 1:
        all_reduce(value, "mean")
    return value
