"""The metric that MMDetection's test loop calls for prompted segmentation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmdet.registry import METRICS
from mmengine.logging import print_log

from ultrasam.errors import ConfigError, DataError
from ultrasam.evaluation.breakdown import breakdown
from ultrasam.evaluation.coco import IOU_TYPES
from ultrasam.evaluation.gathering import GatheringMetric
from ultrasam.evaluation.measures import Tolerances, measure_all
from ultrasam.evaluation.orders import compare_orders, in_other_order, order_folder, other_metrics, other_order
from ultrasam.evaluation.records import ObjectRecord, records_of, unique
from ultrasam.evaluation.results import Evaluation, write_objects
from ultrasam.evaluation.summary import summarise_by_dataset


@METRICS.register_module()
class PromptedMaskMetric(GatheringMetric):
    """Average precision, Dice, IoU and success of one predicted mask for every prompted object.

    The truth is read from the data samples themselves, so the metric cannot be pointed at another file than
    the one that is tested. Scores depend neither on the number of processes nor on the samples that a sampler
    repeats to fill the last batch. What is logged is described in `ultrasam.evaluation.summary.summarise`;
    with several data sets the scores of each follow, with its slug in front (`coco/bus_bra/segm_mAP`). Where the
    detector made the masks of both orders, the scores of the other one are logged too
    (`coco/released_order/segm_mAP`).

    Args:
        iou_types: Average precisions to compute: `segm`, `bbox` or both.
        out_dir: Folder for `predictions.<dataset>.json` (COCO results) and `per_object.csv`; nothing is written
            without it.
        detail: Also compute every score of every object, with intervals; `evaluation` then holds them.
        nsd_tolerance: Of the normalised surface Dice, in pixels.
        nsd_tolerance_mm: The same in millimetres, where the pixel size is known.
        collect_device: `cpu` or `gpu`; kept for MMEngine's signature, results are small and plain either way.
        prefix: What to put before every logged name; `coco` by default, as in MMDetection.

    Raises:
        ConfigError: An unknown IoU type.
    """

    default_prefix = "coco"

    def __init__(
        self,
        iou_types: Sequence[str] = IOU_TYPES,
        out_dir: str | None = None,
        detail: bool = False,
        nsd_tolerance: float = 2.0,
        nsd_tolerance_mm: float = 1.0,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        unknown = [name for name in iou_types if name not in IOU_TYPES]
        if isinstance(iou_types, str) or unknown:
            raise ConfigError(
                f"iou_types of PromptedMaskMetric is {iou_types!r}, but it must be a list out of "
                f"{list(IOU_TYPES)}."
            )
        self.iou_types = tuple(iou_types)
        self.out_dir = out_dir
        self.detail = detail
        self.tolerances = Tolerances(nsd_tolerance, nsd_tolerance_mm)
        self.evaluation: Evaluation | None = None
        self.other_evaluation: Evaluation | None = None
        self.results: list[ObjectRecord] = []

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep what is needed of predicted data samples (see `ultrasam.evaluation.records.records_of`)."""
        for sample in data_samples:
            self.results.extend(records_of(sample))

    def compute_metrics(self, results: list[ObjectRecord]) -> dict[str, float]:
        """Compute the scores of these records, repeated ones included, and write the files asked for."""
        records = unique(results)
        if not records:
            raise DataError(
                "There are no objects to score: the tested samples carry no annotations, so check that the "
                "annotation file belongs to these images and that its class names are those of the config."
            )
        metrics = summarise_by_dataset(records, self.iou_types) | other_metrics(records, self.iou_types)
        if self.detail or self.out_dir is not None:
            self.keep_details(records)
        if self.out_dir is not None and self.evaluation is not None:
            paths = write_objects(self.out_dir, self.evaluation)
            if self.other_evaluation is not None:
                paths += write_objects(Path(self.out_dir) / order_folder(records), self.other_evaluation)
            print_log("Wrote " + ", ".join(str(path) for path in paths), logger="current")
        if not metrics["predicted"]:
            print_log(
                f"All {metrics['objects']} predicted masks are empty or missing, so every score is 0: check "
                "the weights, the prompts and the mask threshold.",
                logger="current",
                level=logging.WARNING,
            )
        return metrics

    def keep_details(self, records: list[ObjectRecord]) -> None:
        """Compute every score of every object and the intervals, also of the other mask order where there is one."""
        self.evaluation, self.other_evaluation = self.evaluate_details(records), None
        order = other_order(records)
        if order:
            self.other_evaluation = self.evaluate_details(in_other_order(records))
            compared = compare_orders(self.evaluation, self.other_evaluation)
            self.evaluation = replace(
                self.evaluation, breakdown={**self.evaluation.breakdown, "mask_orders": compared}
            )

    def evaluate_details(self, records: list[ObjectRecord]) -> Evaluation:
        """Return the scores of every object with the intervals of every part."""
        measures = measure_all(records, self.tolerances)
        return Evaluation(records, measures, breakdown(records, measures, tolerances=self.tolerances))
