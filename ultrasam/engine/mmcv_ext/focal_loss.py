"""Focal losses, as ``mmcv._ext`` has them: values and gradients before any reduction.

``weight`` is one factor per class, or an empty tensor for none. Probabilities are kept from zero inside
logarithms as in mmcv, by the smallest normal float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ultrasam.engine.mmcv_ext.precision import widen

_SMALLEST = torch.finfo(torch.float32).tiny


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the sigmoid focal loss of every logit.

    Args:
        input: logits N x C.
        target: N int64 classes; one outside 0 .. C-1 (MMDetection's background is C) has only negatives.
        weight: C or empty. With weights every target must be a class.
        output: written in place, N x C.
        gamma: exponent of the modulating factor.
        alpha: weight of the positives, 1 - alpha that of the negatives.
    """
    probability, positive = _sigmoid_parts(input, target)
    loss = torch.where(
        positive,
        -alpha * (1 - probability) ** gamma * _log(probability),
        -(1 - alpha) * probability**gamma * _log(1 - probability),
    )
    output.copy_(_weighted_rows(loss, target, weight))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the derivative of every loss of :func:`sigmoid_focal_loss_forward` by its logit.

    Args:
        input: as in the forward pass.
        target: as in the forward pass.
        weight: as in the forward pass.
        grad_input: written in place, N x C.
        gamma: as in the forward pass.
        alpha: as in the forward pass.
    """
    p, positive = _sigmoid_parts(input, target)
    gradient = torch.where(
        positive,
        -alpha * (1 - p) ** gamma * (1 - p - gamma * p * _log(p)),
        -(1 - alpha) * p**gamma * (gamma * (1 - p) * _log(1 - p) - p),
    )
    grad_input.copy_(_weighted_rows(gradient, target, weight))


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the softmax focal loss of every row.

    Args:
        input: probabilities N x C (the softmax is taken by mmcv's wrapper).
        target: N int64 classes; a negative one is ignored and costs nothing.
        weight: C or empty.
        output: written in place, N.
        gamma: exponent of the modulating factor.
        alpha: factor of the whole loss.
    """
    probability, classes, counted = _softmax_parts(input, target)
    loss = -alpha * (1 - probability) ** gamma * _log(probability)
    output.copy_(torch.where(counted, _weighted_rows(loss, classes, weight), torch.zeros_like(loss)))


def softmax_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the gradient of every loss of :func:`softmax_focal_loss_forward` by the logits of its row.

    Args:
        input: as in the forward pass.
        target: as in the forward pass.
        weight: as in the forward pass.
        buff: N, overwritten by the factor that a row's gradient has in common.
        grad_input: written in place, N x C.
        gamma: as in the forward pass.
        alpha: as in the forward pass.
    """
    p, classes, counted = _softmax_parts(input, target)
    log_p = _log(p)
    # (1 - p)^(gamma - 1) * log(p) tends to 0 at p = 1, where a gamma below 1 would give infinity times zero.
    steep = torch.where(p < 1, (1 - p).clamp(min=_SMALLEST) ** (gamma - 1) * log_p, torch.zeros_like(p))
    factor = alpha * (gamma * p * steep - (1 - p) ** gamma)
    factor = torch.where(counted, _weighted_rows(factor, classes, weight), torch.zeros_like(factor))
    buff.copy_(factor)
    own_class = torch.nn.functional.one_hot(classes, input.shape[1])
    grad_input.copy_(factor[:, None] * (own_class - widen(input)))


def _sigmoid_parts(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the probabilities N x C and whether each belongs to its row's class."""
    classes = torch.arange(logits.shape[1], device=logits.device)
    return widen(logits).sigmoid(), target[:, None] == classes


def _softmax_parts(probabilities: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the probability of every row's class, the class (0 if ignored) and whether it counts."""
    classes = target.clamp(min=0)
    own = widen(probabilities).gather(1, classes[:, None])[:, 0]
    return own, classes, target >= 0


def _weighted_rows(values: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the rows of ``values`` times the weight of their class."""
    if weight.numel() == 0:
        return values
    # index_select refuses classes out of range, plain indexing would wrap negative ones around.
    factors = weight.index_select(0, target).to(values.dtype)
    return values * factors.view(-1, *[1] * (values.dim() - 1))


def _log(probability: Tensor) -> Tensor:
    """Return the logarithm, finite at zero."""
    return probability.clamp(min=_SMALLEST).log()
