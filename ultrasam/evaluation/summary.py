"""Scores of a list of prompted objects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ultrasam.errors import DataError
from ultrasam.evaluation.coco import IOU_THRESHOLDS, IOU_TYPES, coco_metrics
from ultrasam.evaluation.records import Box, ObjectRecord


def summarise(records: Sequence[ObjectRecord], iou_types: Sequence[str] = IOU_TYPES) -> dict[str, float]:
    """Compute every score of the objects together.

    An object whose true and predicted masks are both empty is counted in `both_empty` and enters no other
    number. One that was predicted nothing or an empty mask has Dice and IoU 0.

    Args:
        records: Distinct objects, in an order that does not depend on the run (see `records.unique`).
        iou_types: Which average precisions to compute: `segm`, `bbox`.

    Returns:
        `<iou_type>_mAP`, `_mAP_50`, `_mAP_75` (and `_mAP_s`, `_mAP_m`, `_mAP_l` where such objects exist);
        `mean_dice`, `mean_iou`; `success`, the share of objects with at least a given IoU, averaged over
        .50:.05:.95; `objects`; `predicted`, those with a non-empty mask; `both_empty`, when there are any.

    Raises:
        DataError: There are no objects.
    """
    overlaps = [record.iou for record in records]
    counted = [(r, iou) for r, iou in zip(records, overlaps, strict=True) if not math.isnan(iou)]
    both_empty = len(records) - len(counted)
    if not counted:
        raise DataError(
            f"There are no objects to score ({both_empty} have neither a true nor a predicted pixel): check "
            "that the annotation file belongs to the tested images and that its masks are not empty."
        )
    ious = np.array([iou for _, iou in counted])
    scored = [record for record, _ in counted]
    metrics: dict[str, float] = {}
    for iou_type in iou_types:
        for name, value in average_precision(scored, iou_type).items():
            metrics[f"{iou_type}_{name}"] = value
    metrics["mean_dice"] = float(np.mean(2 * ious / (1 + ious)))
    metrics["mean_iou"] = float(ious.mean())
    metrics["success"] = float(np.mean(ious[:, None] >= IOU_THRESHOLDS))
    metrics["objects"] = len(scored)
    metrics["predicted"] = sum(record.mask_area > 0 for record in scored)
    if both_empty:
        metrics["both_empty"] = both_empty
    return metrics


def summarise_by_dataset(
    records: Sequence[ObjectRecord], iou_types: Sequence[str] = IOU_TYPES
) -> dict[str, float]:
    """Compute the scores of all objects and, with several data sets, of each as `<slug>/<score>`."""
    metrics = summarise(records, iou_types)
    slugs = sorted({record.dataset for record in records})
    if len(slugs) < 2:
        return metrics
    for slug in slugs:
        part = [record for record in records if record.dataset == slug]
        name = slug or "unnamed"
        if all(math.isnan(record.iou) for record in part):
            metrics[f"{name}/both_empty"] = len(part)
            continue
        for score, value in summarise(part, iou_types).items():
            metrics[f"{name}/{score}"] = value
    return metrics


def average_precision(records: Sequence[ObjectRecord], iou_type: str = "segm") -> dict[str, float]:
    """Return COCO's average precisions of masks or boxes (see `ultrasam.evaluation.coco`).

    Args:
        records: distinct objects, in an order that does not depend on the run.
        iou_type: "segm" or "bbox".
    """
    images: dict[tuple[Any, ...], dict[str, Any]] = {}
    truths, predictions = [], []
    for record in records:
        key = record.image_key
        height, width = record.truth["size"]
        images.setdefault(key, {"id": key, "height": height, "width": width})
        truths.append(
            {"image_id": key, "segmentation": record.truth, "bbox": xywh(record.truth_box), "area": record.truth_area}
        )
        if record.mask is not None:
            predictions.append(
                {
                    "image_id": key,
                    "segmentation": record.mask,
                    "bbox": xywh(record.box),
                    "area": record.mask_area,
                    "score": record.score,
                }
            )
    # Records hold masks that were checked when they were read or made here.
    return coco_metrics(list(images.values()), truths, predictions, iou_type, measured=True)


def xywh(box: Box) -> list[float]:
    """Turn x1, y1, x2, y2 into COCO's x, y, width, height, pixels."""
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]
