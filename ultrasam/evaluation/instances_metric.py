"""The metric that MMDetection's test loop calls for instance segmentation and detection."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import METRICS

from ultrasam.errors import ConfigError, DataError
from ultrasam.evaluation.coco import IOU_TYPES
from ultrasam.evaluation.files import write_coco_results
from ultrasam.evaluation.gathering import GatheringMetric
from ultrasam.evaluation.instances import (
    FoundObject,
    ImageRecord,
    instance_intervals,
    instance_metrics,
    unique_records,
)
from ultrasam.geometry.rle import encode_mask, measure_rles


def record_of(sample: dict[str, Any]) -> ImageRecord:
    """Return what is kept of a predicted data sample: masks as RLE, nothing of the image.

    Args:
        sample: `gt_instances` with `rles` and `labels`, `pred_instances` with `masks` (N, H, W) bool, `bboxes`,
            `scores` and `labels`, and the image's meta information.

    Raises:
        DataError: the sample has no truth at the original size.
    """
    truth, found = sample["gt_instances"], sample["pred_instances"]
    path = str(sample["img_path"])
    if "rles" not in truth:
        raise DataError(f"{path}: the test pipeline gives no masks of the original size; use PackInstances in it")
    rles = [encode_mask(mask) for mask in torch.as_tensor(found["masks"]).cpu().numpy()]
    return ImageRecord(
        dataset=str(sample.get("dataset") or ""),
        group=str(sample.get("group") or path),
        path=path,
        image_id=int(sample["img_id"]),
        size=(int(sample["ori_shape"][0]), int(sample["ori_shape"][1])),
        truth=_objects(truth["rles"], truth["labels"], [1.0] * len(truth["rles"]), path),
        found=_objects(rles, found["labels"], torch.as_tensor(found["scores"]).tolist(), path),
    )


def _objects(rles: Sequence[Any], labels: Any, scores: Sequence[float], path: str) -> tuple[FoundObject, ...]:
    areas, boxes = measure_rles(list(rles), [f"{path}, object {number + 1}" for number in range(len(rles))])
    listed = zip(rles, boxes.tolist(), areas.tolist(), torch.as_tensor(labels).tolist(), scores, strict=True)
    return tuple(
        FoundObject(dict(rle), (x1, y1, x2, y2), float(area), int(label), float(score))
        for rle, (x1, y1, x2, y2), area, label, score in listed
    )


@METRICS.register_module()
class InstanceMetric(GatheringMetric):
    """COCO's average precision of masks and boxes, mean over classes and of each class.

    The truth is read from the data samples, so the metric cannot be pointed at another file than the one that is
    tested. Images that a sampler repeats count once, and the number of processes changes nothing. A box is that of
    its mask, for truth and prediction alike.

    Logged: `segm_mAP`, `segm_mAP_50`, `segm_mAP_75`, `segm_mAP_s`, `_m`, `_l`, `segm_mAP.<class>`,
    `segm_mAP_50.<class>`, the same with `bbox_`, `images` and `objects`; with `intervals` also `segm_mAP_low` and
    `segm_mAP_high` (95 %, patients resampled) and those of `_50`.

    Args:
        iou_types: average precisions to compute: `segm`, `bbox` or both.
        classes: names in the order of the labels; None takes those of the tested data set.
        intervals: number of bootstrap samples, 0 for no intervals.
        out_dir: folder for `predictions.<dataset>.json`; nothing is written without it.
        collect_device: for MMEngine's signature.
        prefix: what to put before every logged name; `coco` by default, as in MMDetection.

    Raises:
        ConfigError: an unknown IoU type, or a negative number of samples.
    """

    default_prefix = "coco"

    def __init__(
        self,
        iou_types: Sequence[str] = IOU_TYPES,
        classes: Sequence[str] | None = None,
        intervals: int = 0,
        out_dir: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if isinstance(iou_types, str) or not set(iou_types) <= set(IOU_TYPES):
            raise ConfigError(f"iou_types of InstanceMetric must be a list out of {list(IOU_TYPES)}, got {iou_types!r}")
        if intervals < 0:
            raise ConfigError(f"intervals of InstanceMetric is a number of resamples from 0, got {intervals}")
        self.iou_types = tuple(iou_types)
        self.classes = None if classes is None else tuple(classes)
        self.intervals = intervals
        self.out_dir = out_dir
        self.results: list[ImageRecord] = []
        self.records: list[ImageRecord] = []

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep what is needed of predicted data samples."""
        self.results.extend(record_of(sample) for sample in data_samples)

    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes.

        Raises:
            ConfigError: neither given nor known from the data set.
        """
        names = self.classes or (self.dataset_meta or {}).get("classes")
        if not names:
            raise ConfigError("InstanceMetric does not know the classes; give them in its configuration")
        return tuple(names)

    def compute_metrics(self, results: list[ImageRecord]) -> dict[str, float]:
        """Compute the scores of these images, repeated ones included, and write the file asked for."""
        self.records = unique_records(results)
        names = self.class_names()
        scores: dict[str, float] = {}
        for kind in self.iou_types:
            for name, value in instance_metrics(self.records, names, kind).items():
                scores[f"{kind}_{name}"] = value
            if self.intervals:
                found = instance_intervals(self.records, names, kind, resamples=self.intervals)
                for name, (low, high) in found.items():
                    scores[f"{kind}_{name}_low"], scores[f"{kind}_{name}_high"] = low, high
        scores["images"] = len(self.records)
        scores["objects"] = sum(len(record.truth) for record in self.records)
        if self.out_dir is not None:
            self.write_files(self.out_dir)
        return scores

    def write_files(self, folder: str | Path) -> list[Path]:
        """Write `predictions.<dataset>.json` of the last evaluation in COCO's results format, and return the paths.

        Category ids are labels + 1, which are those of the prepared annotation files.
        """
        names = self.class_names()
        rows: dict[str, list[dict[str, Any]]] = {}
        for record in self.records:
            listed = rows.setdefault(record.dataset, [])
            for item in record.found:
                x1, y1, x2, y2 = item.box
                listed.append(
                    {
                        "image_id": record.image_id,
                        "category_id": item.label + 1,
                        "category": names[item.label],
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "score": item.score,
                        "segmentation": item.rle,
                    }
                )
        return write_coco_results(folder, rows)
