"""Average precision of classified detections by COCO's rules, with intervals over patients."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO, COCOeval_faster
from pycocotools import mask as rle_tools

from ultrasam.errors import ConfigError, DataError
from ultrasam.evaluation.coco import IOU_TYPES
from ultrasam.evaluation.intervals import LEVEL, group_numbers, resample_weights
from ultrasam.evaluation.precision_interval import Matches, Values, average_precisions, greedy, ranked_matches

_LOG = logging.getLogger(__name__)
_AREAS = (("mAP", "all"), ("mAP_s", "small"), ("mAP_m", "medium"), ("mAP_l", "large"))
# COCO's own limit.
MOST = 100
_PORTION = 2_000_000


@dataclass(frozen=True)
class FoundObject:
    """One true or predicted object.

    Attributes:
        rle: mask of the image's size.
        box: half-open x1, y1, x2, y2 in original pixels.
        area: pixels of the mask.
        label: class from 0.
        score: 1 for a true one.
    """

    rle: dict[str, Any]
    box: tuple[float, float, float, float]
    area: float
    label: int
    score: float = 1.0


@dataclass(frozen=True)
class ImageRecord:
    """The true and the predicted objects of one image.

    Attributes:
        dataset: slug of the data set, or empty.
        group: what must not be split, such as a patient.
        path: of the image file.
        image_id: in the annotation file.
        size: height, width in pixels.
        truth: true objects.
        found: predicted objects.
    """

    dataset: str
    group: str
    path: str
    image_id: int
    size: tuple[int, int]
    truth: tuple[FoundObject, ...] = field(default=())
    found: tuple[FoundObject, ...] = field(default=())

    @property
    def key(self) -> tuple[str, str, int]:
        """Identity of the image; sorts the same way whichever process saw it."""
        return (self.dataset, self.path, self.image_id)


class ClassEvaluation(COCOeval_faster):
    """faster-coco-eval's evaluation with overlaps of masks by pycocotools, class by class, without copies of masks.

    It is built for boxes, so that no copies are made; annotations carry `segmentation` beside their box.
    """

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802, N803
        """Return the IoU of the predictions of a class in an image, best score first, with its objects: (D, T)."""
        truths = [item for item in self.cocoGt.imgToAnns[imgId] if item["category_id"] == catId]
        found = [item for item in self.cocoDt.imgToAnns[imgId] if item["category_id"] == catId]
        if not truths or not found:
            return []
        found = sorted(found, key=lambda item: -item["score"])[: self.params.maxDets[-1]]
        masks = ([item["segmentation"] for item in part] for part in (found, truths))
        return rle_tools.iou(*masks, [0] * len(truths))


def instance_metrics(
    records: Sequence[ImageRecord], classes: Sequence[str], iou_type: str = "segm"
) -> dict[str, float]:
    """Compute COCO's average precision, the mean over classes.

    Args:
        records: distinct images.
        classes: names in the order of the labels.
        iou_type: "segm" compares masks, "bbox" boxes.

    Returns:
        `mAP` (mean over the IoU thresholds .50:.05:.95 and over the classes with objects), `mAP_50`, `mAP_75`,
        `mAP_s`, `mAP_m`, `mAP_l` where objects of that size exist, and `mAP.<class>`, `mAP_50.<class>`; all 0 to 1.

    Raises:
        ConfigError: `iou_type` is neither of the two.
        DataError: no objects, or a class or score that is none.
    """
    precision, areas = precision_table(records, classes, iou_type)
    metrics = {}
    for name, area in _AREAS:
        table = precision[:, :, :, areas.index(area)]
        if (table > -1).any():
            metrics[name] = float(table[table > -1].mean())
        if area == "all":
            for suffix, threshold in (("50", 0), ("75", 5)):
                row = table[threshold]
                metrics[f"mAP_{suffix}"] = float(row[row > -1].mean())
            for label, title in enumerate(classes):
                column = table[:, :, label]
                if (column > -1).any():
                    metrics[f"mAP.{title}"] = float(column.mean())
                    metrics[f"mAP_50.{title}"] = float(column[0].mean())
    return metrics


def precision_table(
    records: Sequence[ImageRecord], classes: Sequence[str], iou_type: str
) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Return the precisions (thresholds, recalls, classes, areas), -1 without objects, and the names of the areas."""
    if iou_type not in IOU_TYPES:
        raise ConfigError(f"iou_type is {iou_type!r}, but only 'segm' (masks) and 'bbox' (boxes) exist")
    check_records(records, classes)
    images = [{"id": number + 1, "height": r.size[0], "width": r.size[1]} for number, r in enumerate(records)]
    truth = _coco_set(images, [record.truth for record in records], classes, box_areas=False)
    found = _coco_set(images, [record.found for record in records], classes, box_areas=iou_type == "bbox")
    evaluate = ClassEvaluation if iou_type == "segm" else COCOeval_faster
    evaluation = evaluate(truth, found, iouType="bbox", print_function=_LOG.debug)
    evaluation.params.maxDets = [1, 10, MOST]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"], dtype=np.float64)[..., -1]
    return precision, list(evaluation.params.areaRngLbl)


def check_records(records: Sequence[ImageRecord], classes: Sequence[str]) -> None:
    """Refuse what cannot be scored.

    Raises:
        DataError: no true objects, or an object whose class or score is none.
    """
    if not any(record.truth for record in records):
        raise DataError(
            f"there are no true objects in {len(records)} images, so there is no average precision; give the "
            "annotation file of the split that was predicted"
        )
    for record in records:
        for item in (*record.truth, *record.found):
            if not 0 <= item.label < len(classes) or not math.isfinite(item.score):
                raise DataError(
                    f"{record.path}: an object has the class {item.label} and the score {item.score}, expected a "
                    f"class from 0 to {len(classes) - 1} and a finite score; check the classes of model and data"
                )


def _coco_set(
    images: list[dict[str, int]],
    objects: Sequence[Sequence[FoundObject]],
    classes: Sequence[str],
    box_areas: bool,
) -> COCO:
    """Return a COCO set with ids from 1.

    COCO sorts truth into sizes by the area of its mask, and a prediction by the area of what it is compared by.
    """
    rows: list[dict[str, Any]] = []
    for image, part in zip(images, objects, strict=True):
        for item in part:
            x1, y1, x2, y2 = item.box
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": image["id"],
                    "category_id": item.label + 1,
                    "iscrowd": 0,
                    "segmentation": item.rle,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1) if box_areas else item.area,
                    "score": item.score,
                }
            )
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(classes)]
    return COCO({"info": {}, "images": images, "annotations": rows, "categories": categories})


def instance_intervals(
    records: Sequence[ImageRecord],
    classes: Sequence[str],
    iou_type: str = "segm",
    *,
    resamples: int = 1000,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Return the bootstrap intervals of `mAP` and `mAP_50`, resampled by group (patient).

    Objects are matched once, and a resample changes how often a patient counts. A class without objects in a
    resample is left out of its mean, as COCO leaves out one without objects in the data.

    Args:
        records: distinct images.
        classes: names in the order of the labels.
        iou_type: "segm" or "bbox".
        resamples: number of bootstrap samples.
        level: of confidence.
        seed: of the resampling.

    Returns:
        name -> (low, high); empty for a single group.
    """
    names = [f"{record.dataset}/{record.group}" for record in records]
    groups = int(group_numbers(names).max(initial=-1)) + 1
    if groups < 2:
        return {}
    tables = []
    for label in range(len(classes)):
        matches = class_matches(records, names, label, iou_type)
        if matches.objects.any():
            tables.append(_resampled(matches, resamples, seed))
    stacked = np.stack(tables)
    present = np.isfinite(stacked[:, :, 0]).any(axis=0)
    means = np.nanmean(stacked[:, present], axis=0)
    ends = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(means.mean(axis=1), ends)
    low50, high50 = np.quantile(means[:, 0], ends)
    return {"mAP": (float(low), float(high)), "mAP_50": (float(low50), float(high50))}


def class_matches(
    records: Sequence[ImageRecord], names: Sequence[str], label: int, iou_type: str
) -> Matches:
    """Match the predictions of one class with its objects, image by image, and rank them.

    Args:
        records: distinct images.
        names: group of each image; every group is counted, with and without objects of the class.
        label: of the class.
        iou_type: "segm" or "bbox".
    """
    numbers = group_numbers(names)
    hits: list[npt.NDArray[np.bool_] | None] = []
    scores: list[float] = []
    owners: list[str] = []
    objects = np.zeros(int(numbers.max(initial=-1)) + 1)
    for record, number, name in zip(records, numbers, names, strict=True):
        truth = [item for item in record.truth if item.label == label]
        found = sorted((item for item in record.found if item.label == label), key=lambda item: -item.score)[:MOST]
        objects[number] += len(truth)
        flags = greedy(overlaps(found, truth, iou_type))
        hits += list(flags.T)
        scores += [item.score for item in found]
        owners += [name] * len(found)
    # Groups without predictions of the class keep their number: one entry without prediction stands for each.
    rest = sorted(set(names))
    ranked = ranked_matches([*hits, *[None] * len(rest)], [*scores, *[0.0] * len(rest)], [*owners, *rest])
    return Matches(ranked.hits, ranked.owner, objects)


def overlaps(found: Sequence[FoundObject], truth: Sequence[FoundObject], iou_type: str) -> Values:
    """Return the IoU of every prediction with every object: (D, T)."""
    if not found or not truth:
        return np.zeros((len(found), len(truth)))
    crowd = [0] * len(truth)
    if iou_type == "segm":
        return np.asarray(rle_tools.iou([item.rle for item in found], [item.rle for item in truth], crowd))
    parts = [np.array([item.box for item in part], np.float64) for part in (found, truth)]
    boxes = [np.concatenate([part[:, :2], part[:, 2:] - part[:, :2]], axis=1) for part in parts]
    return np.asarray(rle_tools.iou(*boxes, crowd))


def class_precisions(matches: Matches, weights: Values) -> Values:
    """Return the average precisions (B, thresholds) under group weights (B, G); NaN where no object counts."""
    answer = np.full((len(weights), len(matches.hits)), np.nan)
    some = weights @ matches.objects > 0
    if some.any():
        answer[some] = average_precisions(matches, weights[some])
    return answer


def _resampled(matches: Matches, resamples: int, seed: int) -> Values:
    """Return the average precisions (resamples, thresholds) of the bootstrap samples of a seed."""
    groups = len(matches.objects)
    part = max(_PORTION // max(matches.hits.shape[1], groups, 1), 1)
    return np.concatenate(
        [
            class_precisions(matches, resample_weights(groups, min(part, resamples - start), seed, start))
            for start in range(0, resamples, part)
        ]
    )


def unique_records(records: Sequence[ImageRecord]) -> list[ImageRecord]:
    """Return each image once, in an order that does not depend on the number of processes."""
    found: Mapping[tuple[str, str, int], ImageRecord] = {record.key: record for record in reversed(records)}
    return [found[key] for key in sorted(found)]
