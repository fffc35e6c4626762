"""Overlaps and suppression of boxes, as ``mmcv._ext`` has them.

Boxes are x1, y1, x2, y2. ``offset`` is 0, or 1 where a box's width is ``x2 - x1 + 1`` (the old convention
of Caffe).
"""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor

from ultrasam.engine.mmcv_ext.precision import widen

_NAIVE, _LINEAR, _GAUSSIAN = 0, 1, 2


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices of the boxes that are kept, by falling score.

    Args:
        boxes: N x 4.
        scores: N.
        iou_threshold: a box is dropped if it overlaps a kept one by more than this.
        offset: 0 or 1, see above.

    Returns:
        int64 indices on the boxes' device.
    """
    work = widen(boxes)
    if offset:
        work = work + work.new_tensor([0, 0, offset, offset])
    return torchvision.ops.nms(work, scores.to(work.dtype), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lower the scores of overlapping boxes instead of dropping the boxes.

    Args:
        boxes: N x 4.
        scores: N.
        dets: N x 5, overwritten in its first K rows by the kept boxes and their new scores, best first.
        iou_threshold: overlap from which on the methods 0 and 1 act.
        sigma: width of the Gaussian of method 2.
        min_score: a box whose score falls below this is dropped.
        method: 0 sets the score to zero, 1 multiplies it by 1 - IoU, 2 by exp(-IoU^2 / sigma).
        offset: 0 or 1, see above.

    Returns:
        K int64 indices. Equal scores are taken in the order of the input.
    """
    work, current = widen(boxes), widen(scores).clone()
    remaining = torch.arange(len(work), device=work.device)
    kept: list[Tensor] = []
    while len(remaining):
        best = int(current[remaining].argmax())
        index = remaining[best]
        dets[len(kept), :4] = boxes[index]
        dets[len(kept), 4] = current[index]
        kept.append(index)
        remaining = torch.cat((remaining[:best], remaining[best + 1 :]))
        overlap = _pairwise(work[index][None], work[remaining], "iou", offset)[0]
        current[remaining] *= _decay(overlap, iou_threshold, sigma, method)
        remaining = remaining[~(current[remaining] < min_score)]
    return torch.stack(kept) if kept else remaining


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Group boxes by the better one that suppresses them.

    Args:
        dets: N x 5, boxes and scores.
        iou_threshold: a box joins the group of the first better box that it overlaps by at least this.

    Returns:
        One list of indices for every kept box, itself first, the others by falling score.
    """
    order = dets[:, 4].argsort(descending=True, stable=True)
    groups: list[list[int]] = []
    while len(order):
        overlap = _pairwise(dets[order[:1], :4], dets[order[1:], :4], "iou", 0)[0]
        suppressed = overlap >= iou_threshold
        groups.append([int(order[0]), *order[1:][suppressed].tolist()])
        order = order[1:][~suppressed]
    return groups


def bbox_overlaps(
    bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int
) -> None:
    """Write the overlaps of two sets of boxes.

    Args:
        bboxes1: M x 4.
        bboxes2: N x 4; M = N if ``aligned``.
        ious: written in place, M x N, or M if ``aligned``. Two empty boxes have 0 / 0 = NaN, as in mmcv.
        mode: 0 divides the intersection by the union, 1 by the area of the box of ``bboxes1``.
        aligned: compare row by row instead of all with all.
        offset: 0 or 1, see above.
    """
    first, second = widen(bboxes1), widen(bboxes2).to(widen(bboxes1).dtype)
    kind = ("iou", "iof")[mode]
    ious.copy_(_overlap(first, second, kind, offset) if aligned else _pairwise(first, second, kind, offset))


def _decay(overlap: Tensor, iou_threshold: float, sigma: float, method: int) -> Tensor:
    """Return the factor of every score for its box's overlap with the box just kept."""
    if method == _GAUSSIAN:
        return torch.exp(-overlap.square() / sigma)
    factor = {_NAIVE: torch.zeros_like(overlap), _LINEAR: 1 - overlap}[method]
    return torch.where(overlap >= iou_threshold, factor, torch.ones_like(overlap))


def _pairwise(first: Tensor, second: Tensor, mode: str, offset: int) -> Tensor:
    """Return the M x N overlaps of M x 4 and N x 4 boxes."""
    return _overlap(first[:, None], second[None], mode, offset)


def _overlap(first: Tensor, second: Tensor, mode: str, offset: int) -> Tensor:
    """Return the overlaps of two arrays of boxes whose leading shapes broadcast."""
    corner_low = torch.maximum(first[..., :2], second[..., :2])
    corner_high = torch.minimum(first[..., 2:], second[..., 2:])
    intersection = (corner_high - corner_low + offset).clamp(min=0).prod(-1)
    base = _area(first, offset)
    if mode == "iou":
        base = base + _area(second, offset) - intersection
    return intersection / base


def _area(boxes: Tensor, offset: int) -> Tensor:
    """Return the areas of boxes of shape (..., 4)."""
    return (boxes[..., 2:] - boxes[..., :2] + offset).prod(-1)
