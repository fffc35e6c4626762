"""From low-resolution logits to masks and boxes of the original image."""

from __future__ import annotations

import torch
from torch import Tensor

from ultrasam.geometry.transform import SquareTransform

CHUNK = 32
MASK_ORDERS = ("logits", "released")


def masks_at_original_size(logits: Tensor, transform: SquareTransform, order: str = "logits") -> Tensor:
    """Return masks (N, H, W) bool.

    Args:
        logits: (N, h, w) low-resolution logits over the padded square.
        transform: of the image.
        order: "logits" enlarges first and thresholds once; "released" binarises first (measured on BUS-BRA: a
            perfect mask then reaches an IoU of 0.944 only).
    """
    height, width = transform.original_size
    parts = []
    for start in range(0, len(logits), CHUNK):
        part = logits[start : start + CHUNK]
        parts.append(
            transform.masks_back_released(part) if order == "released" else transform.logits_back(part) > 0
        )
    return torch.cat(parts) if parts else torch.zeros(0, height, width, dtype=torch.bool, device=logits.device)


def other_mask_order(order: str) -> str:
    """Return the other one of the two mask orders."""
    return MASK_ORDERS[1 - MASK_ORDERS.index(order)]


def box_of_masks(masks: Tensor) -> Tensor:
    """Return the half-open boxes x1, y1, x2, y2 of masks (N, H, W): (N, 4) float32, zeros for an empty mask."""
    columns, rows = masks.any(dim=1), masks.any(dim=2)
    some = rows.any(dim=1, keepdim=True)

    def ends(hit: Tensor) -> tuple[Tensor, Tensor]:
        first = hit.to(torch.uint8).argmax(dim=1)
        last = hit.shape[1] - hit.flip(1).to(torch.uint8).argmax(dim=1)
        return first, last

    x1, x2 = ends(columns)
    y1, y2 = ends(rows)
    return torch.stack([x1, y1, x2, y2], dim=1).float() * some
