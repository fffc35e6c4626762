"""The metric of classification that MMEngine's test loop calls, and the hook that writes what a test found."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet.registry import METRICS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS

from ultrasam.errors import ConfigError, DataError
from ultrasam.evaluation.classification import Classified, ClassRecord, breakdown, records_of, unique
from ultrasam.evaluation.classification_files import write_classification
from ultrasam.evaluation.classification_scores import SCORES
from ultrasam.evaluation.gathering import GatheringMetric
from ultrasam.evaluation.intervals import RESAMPLES


class WritingMetric(GatheringMetric):
    """A metric that leaves files of its last evaluation."""

    def write_results(self, folder: str | Path, about: Mapping[str, Any], title: str) -> list[Path]:
        """Write the files of the last evaluation; returns their paths."""
        raise NotImplementedError


def with_ends(name: str, interval: Mapping[str, Any], resamples: int) -> dict[str, float]:
    """Return a score for the log and, where there were resamples, the ends of its interval."""
    ends = {f"{name}_low": interval["low"], f"{name}_high": interval["high"]} if resamples else {}
    return {name: interval["mean"], **ends}


@METRICS.register_module()
class ClassificationMetric(WritingMetric):
    """Precision, recall, F1 and AUC (macro), accuracy, calibration, each with an interval clustered by patient.

    The truth is read from the samples themselves. Logged are ``classification/f1`` and so on with
    ``classification/f1_low`` and ``_high``, the ends of the 95 % interval.

    Args:
        resamples: Bootstrap samples of whole patients; 0 leaves the intervals out.
        seed: Of the resampling.
        collect_device: Kept for MMEngine's signature.
        prefix: What to put before every logged name.

    Raises:
        ConfigError: A negative number of resamples.
    """

    default_prefix = "classification"

    def __init__(
        self, resamples: int = RESAMPLES, seed: int = 0, collect_device: str = "cpu", prefix: str | None = None
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if resamples < 0:
            raise ConfigError(f"resamples of ClassificationMetric must not be negative, got {resamples}")
        self.resamples = resamples
        self.seed = seed
        self.classes: tuple[str, ...] | None = None
        self.found: Classified | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep what is needed of predicted samples.

        Raises:
            DataError: The samples have different classes.
        """
        for sample in data_samples:
            names = tuple(sample["classes"])
            if self.results and self.results[0][0] != names:
                raise DataError(
                    f"{sample['img_path']} has the classes {list(names)}, samples before it "
                    f"{list(self.results[0][0])}; give all data sets of a test the same classes"
                )
            self.results.extend((names, record) for record in records_of(sample))

    def compute_metrics(self, results: list[tuple[tuple[str, ...], ClassRecord]]) -> dict[str, float]:
        """Compute the scores of these records, repeated ones included.

        Raises:
            DataError: There are no objects.
        """
        records = unique(record for _, record in results)
        if not records:
            raise DataError("the tested samples carry no objects to classify; check the annotation file")
        classes = results[0][0]
        found = breakdown(records, classes, resamples=self.resamples, seed=self.seed)
        self.found = Classified(records, classes, found)
        if found["absent"]:
            names = ", ".join(found["absent"])
            text = f"No true samples of {names}: left out of the macro means."
            print_log(text, logger="current", level=logging.WARNING)
        metrics: dict[str, float] = {}
        parts = {"": found["overall"], **{f"{slug}/": part for slug, part in found["datasets"].items()}}
        for start, part in parts.items():
            for name in SCORES:
                metrics |= with_ends(f"{start}{name}", part[name], self.resamples)
            metrics[f"{start}objects"] = part["counts"]["objects"]
        return metrics

    def write_results(self, folder: str | Path, about: Mapping[str, Any], title: str) -> list[Path]:
        """Write `per_object.csv`, `breakdown.json` and `report.html`; returns their paths."""
        return [] if self.found is None else write_classification(folder, self.found, about, title)


@HOOKS.register_module()
class WriteResultsHook(Hook):
    """After a test, let the metrics of downstream tasks write their files into the folder of the test."""

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Write per-object scores, intervals and the page."""
        if not is_main_process():
            return
        name = Path(str(runner.cfg.filename)).stem
        about = {"config": str(runner.cfg.filename), "seed": runner.seed}
        for metric in runner.test_evaluator.metrics:
            if isinstance(metric, WritingMetric):
                paths = metric.write_results(runner.work_dir, about, f"{name}: test results")
                print_log("Wrote " + ", ".join(path.name for path in paths), logger="current")
