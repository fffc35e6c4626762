"""The precision that the replacement operators compute in."""

from __future__ import annotations

import torch
from torch import Tensor


def widen(tensor: Tensor) -> Tensor:
    """Return ``tensor`` in float32 if it is float16 or bfloat16, otherwise as it is.

    Half precision reaches these operators under autocast. torchvision's CPU kernels do not take it, and
    sampling positions lose whole pixels in it.
    """
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
