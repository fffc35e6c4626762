"""Bootstrap intervals of COCO's average precision, over groups of images.

Matching inside an image does not depend on the other images, so it is done once; a resample only changes how often an
image counts. The point estimate equals the evaluation of `ultrasam.evaluation.coco`, which a test holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pycocotools import mask as rle_tools

from ultrasam.evaluation.coco import IOU_THRESHOLDS
from ultrasam.evaluation.intervals import LEVEL, Interval, group_numbers, resample_weights
from ultrasam.evaluation.records import ObjectRecord

Flags = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]

RECALLS: Values = np.linspace(0.0, 1.0, 101)
RESAMPLES = 1000
_PORTION = 2_000_000


@dataclass(frozen=True)
class Matches:
    """Ranked predictions of all images.

    Attributes:
        hits: (thresholds, D) whether a prediction meets a true object, ranked by falling score.
        owner: (D,) number of the group of each prediction.
        objects: (G,) true objects of each group.
    """

    hits: Flags
    owner: npt.NDArray[np.int64]
    objects: Values


def match_objects(records: Sequence[ObjectRecord], iou_type: str = "segm") -> Matches:
    """Match the predictions of each image with its objects as COCO does.

    Args:
        records: distinct objects in a fixed order; those without truth and prediction left out.
        iou_type: "segm" or "bbox".
    """
    names = [f"{record.dataset}/{record.group}" for record in records]
    return ranked_matches(hits_of(records, iou_type), [record.score for record in records], names)


def hits_of(records: Sequence[ObjectRecord], iou_type: str = "segm") -> list[Flags | None]:
    """Return for each record whether its prediction meets an object of its image, per threshold; None without one."""
    images: dict[tuple[object, ...], list[int]] = {}
    for number, record in enumerate(records):
        images.setdefault(record.image_key, []).append(number)
    hits: list[Flags | None] = [None] * len(records)
    for members in images.values():
        ranked = sorted((n for n in members if records[n].mask is not None), key=lambda n: -records[n].score)
        if ranked:
            overlap = _overlaps([records[n] for n in ranked], [records[n] for n in members], iou_type)
            for number, found in zip(ranked, greedy(overlap).T, strict=True):
                hits[number] = found
    return hits


def ranked_matches(hits: Sequence[Flags | None], scores: Sequence[float], groups: Sequence[str]) -> Matches:
    """Rank predictions by falling score, of equal ones the first first.

    Args:
        hits: (N,) as `hits_of` gives them; every entry is one true object, also where nothing was predicted.
        scores: (N,).
        groups: (N,) names.
    """
    numbers = group_numbers(groups)
    predicted = np.array([n for n, found in enumerate(hits) if found is not None], np.int64)
    order = predicted[np.argsort(-np.asarray(scores, np.float64)[predicted], kind="mergesort")]
    joined = [found for n in order if (found := hits[n]) is not None]
    flags = np.stack(joined, axis=1) if joined else np.zeros((len(IOU_THRESHOLDS), 0), bool)
    counts = np.bincount(numbers, minlength=int(numbers.max(initial=-1)) + 1).astype(np.float64)
    return Matches(flags, numbers[order], counts)


def average_precisions(matches: Matches, weights: Values) -> Values:
    """Return the average precision of each threshold under group weights: (B, G) to (B, thresholds)."""
    found = np.zeros((len(weights), len(matches.hits)))
    if not matches.hits.shape[1]:
        return found
    counted = weights[:, matches.owner]
    total = counted.cumsum(axis=1)
    objects = weights @ matches.objects
    for threshold, hits in enumerate(matches.hits):
        true = (counted * hits).cumsum(axis=1)
        precision = true / np.maximum(total, np.spacing(1))
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        recall = true / objects[:, None]
        for row in range(len(weights)):
            index = np.searchsorted(recall[row], RECALLS, side="left")
            reached = index < recall.shape[1]
            found[row, threshold] = envelope[row, index[reached]].sum() / len(RECALLS)
    return found


def precision_intervals(
    records: Sequence[ObjectRecord],
    iou_type: str = "segm",
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return ``mAP`` and ``mAP_50`` with their bootstrap intervals over groups."""
    matches = match_objects(records, iou_type)
    groups = len(matches.objects)
    point = average_precisions(matches, np.ones((1, groups)))[0]
    resampled = resampled_precisions(matches, resamples, seed) if groups > 1 else np.full((1, len(point)), np.nan)
    intervals = {}
    for name, value, values in (
        ("mAP", point.mean(), resampled.mean(axis=1)),
        ("mAP_50", point[0], resampled[:, 0]),
    ):
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        intervals[name] = Interval(float(value), float(low), float(high), len(records), groups)
    return intervals


def resampled_precisions(matches: Matches, resamples: int, seed: int) -> Values:
    """Return the average precisions (resamples, thresholds) of the bootstrap samples of a seed."""
    groups = len(matches.objects)
    part = max(_PORTION // max(matches.hits.shape[1], groups, 1), 1)
    portions = [
        average_precisions(matches, resample_weights(groups, min(part, resamples - start), seed, start))
        for start in range(0, resamples, part)
    ]
    return np.concatenate(portions)


def _overlaps(found: list[ObjectRecord], truth: list[ObjectRecord], iou_type: str) -> Values:
    """Return the IoU of every prediction with every object: (D, T)."""
    if iou_type == "segm":
        return np.asarray(
            rle_tools.iou([record.mask for record in found], [record.truth for record in truth], [0] * len(truth))
        )
    boxes = [[(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in part]
             for part in ([record.box for record in found], [record.truth_box for record in truth])]  # fmt: skip
    return np.asarray(rle_tools.iou(np.array(boxes[0], float), np.array(boxes[1], float), [0] * len(truth)))


def greedy(overlap: Values) -> Flags:
    """Return which ranked predictions find a free object, per threshold: IoU (D, T) to (thresholds, D)."""
    hits = np.zeros((len(IOU_THRESHOLDS), len(overlap)), bool)
    for row, threshold in enumerate(IOU_THRESHOLDS):
        free = np.ones(overlap.shape[1], bool)
        for number, ious in enumerate(overlap):
            usable = np.flatnonzero(free & (ious >= min(threshold, 1 - 1e-10)))
            if len(usable):
                # Of equal overlaps COCO takes the last.
                best = usable[len(usable) - 1 - int(ious[usable][::-1].argmax())]
                free[best], hits[row, number] = False, True
    return hits
