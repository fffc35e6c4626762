"""Losses of one decoder pass (paper section 2.2): focal, dice, and regression of the predicted IoU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class LossWeights:
    """Weights and forms of the losses.

    Attributes:
        focal: weight of the sigmoid focal loss (20).
        focal_alpha: weight of the foreground in the focal loss, 0 to 1; the background's is 1 minus it. Below one half
            masks come out smaller than their targets.
        dice: weight of the dice loss (1).
        iou: weight of the IoU regression (1).
        iou_form: "l1" (paper) or "mse" (released system).
        iou_targets: "best" regresses the trained candidate only, "all" every candidate.
    """

    focal: float = 20.0
    focal_alpha: float = 0.25
    dice: float = 1.0
    iou: float = 1.0
    iou_form: str = "l1"
    iou_targets: str = "best"

    def __post_init__(self) -> None:
        if not 0 < self.focal_alpha < 1:
            raise ValueError(f"focal_alpha must lie between 0 and 1, got {self.focal_alpha!r}")
        if self.iou_form not in ("l1", "mse"):
            raise ValueError(f"iou_form must be 'l1' or 'mse', got {self.iou_form!r}")
        if self.iou_targets not in ("best", "all"):
            raise ValueError(f"iou_targets must be 'best' or 'all', got {self.iou_targets!r}")


def focal_loss(logits: Tensor, targets: Tensor, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """Return the sigmoid focal loss of each object, mean over its pixels.

    Args:
        logits: (N, h, w).
        targets: (N, h, w) bool.
        gamma: exponent of the modulating factor.
        alpha: weight of the foreground.

    Returns:
        (N,) float32.
    """
    targets = targets.float()
    logits = logits.float()
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    wrong = probability + targets - 2 * probability * targets
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return (weight * wrong.pow(gamma) * entropy).flatten(1).mean(1)


def dice_loss(logits: Tensor, targets: Tensor, eps: float = 1.0) -> Tensor:
    """Return ``1 - 2 sum(pt) / (sum(p^2) + sum(t^2) + 2 eps)`` of each object.

    Args:
        logits: (N, h, w).
        targets: (N, h, w) bool.
        eps: added to both sums of the denominator.

    Returns:
        (N,) float32.
    """
    p = logits.float().sigmoid().flatten(1)
    t = targets.float().flatten(1)
    return 1 - 2 * (p * t).sum(1) / (p.square().sum(1) + t.sum(1) + 2 * eps)


@torch.no_grad()
def true_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the IoU of candidates binarised at 0 with their target.

    Args:
        logits: (N, M, h, w).
        targets: (N, h, w) bool.

    Returns:
        (N, M) float32; 1 where both are empty.
    """
    masks = (logits > 0).flatten(2)
    truth = targets.flatten(1)[:, None]
    overlap = (masks & truth).sum(-1).float()
    union = (masks | truth).sum(-1).float()
    return torch.where(union > 0, overlap / union.clamp(min=1), torch.ones_like(union))


def pass_losses(
    logits: Tensor, predicted_iou: Tensor, targets: Tensor, weights: LossWeights, normalizer: Tensor | float
) -> dict[str, Tensor]:
    """Return the weighted losses of one pass.

    Per object the candidate with the highest true IoU is trained.

    Args:
        logits: (N, M, h, w) candidates.
        predicted_iou: (N, M).
        targets: (N, h, w) bool.
        weights: see ``LossWeights``.
        normalizer: what sums over objects are divided by: N, or over several processes the mean N of a process.

    Returns:
        ``loss_focal``, ``loss_dice``, ``loss_iou``: scalars, float32.
    """
    iou = true_iou(logits, targets)
    best = iou.argmax(dim=1)
    rows = torch.arange(len(best), device=best.device)
    chosen = logits[rows, best]
    error = predicted_iou.float() - iou
    error = error.abs() if weights.iou_form == "l1" else error.square()
    regression = error.mean(1) if weights.iou_targets == "all" else error[rows, best]
    return {
        "loss_focal": weights.focal * focal_loss(chosen, targets, alpha=weights.focal_alpha).sum() / normalizer,
        "loss_dice": weights.dice * dice_loss(chosen, targets).sum() / normalizer,
        "loss_iou": weights.iou * regression.sum() / normalizer,
    }
