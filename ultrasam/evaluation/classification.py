"""What is kept of every classified image or object, and its scores with intervals clustered by patient."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ultrasam.errors import DataError
from ultrasam.evaluation.classification_scores import BINS, CLASS_SCORES, SCORES, Scored, bin_sums, confusion, score
from ultrasam.evaluation.intervals import LEVEL, RESAMPLES, group_numbers, resample_weights

# Weights in memory at a time.
_PORTION = 2_000_000
# A probability may miss a sum of 1 by rounding.
SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class ClassRecord:
    """One classified image or object.

    Attributes:
        dataset: name of the data set.
        application: of the data set, may be empty.
        group: patient or video.
        image_id: id of the image in its source.
        image_path: of the image.
        annotation_id: id of the object; 0 for an image as a whole.
        prompt: "point", "box", or empty for an image as a whole.
        label: true class, an index.
        probabilities: of each class.
    """

    dataset: str
    application: str
    group: str
    image_id: int
    image_path: str
    annotation_id: int
    prompt: str
    label: int
    probabilities: tuple[float, ...]

    @property
    def key(self) -> tuple[str, str, int, int]:
        """Identity, over data sets and processes."""
        return (self.dataset, self.image_path, self.image_id, self.annotation_id)

    @property
    def cluster(self) -> str:
        """What is resampled as a whole."""
        return f"{self.dataset}/{self.group}"

    @property
    def predicted(self) -> int:
        """The most probable class."""
        return int(np.argmax(self.probabilities))


@dataclass(frozen=True)
class Classified:
    """The objects of one test with their scores.

    Attributes:
        records: distinct objects, sorted by identity.
        classes: names in the order of the labels.
        breakdown: see ``breakdown``.
    """

    records: Sequence[ClassRecord]
    classes: tuple[str, ...]
    breakdown: Mapping[str, Any]


def records_of(sample: Mapping[str, Any]) -> list[ClassRecord]:
    """Turn a predicted sample, as ``DetDataSample.to_dict()`` gives it, into records.

    Args:
        sample: ``img_id``, ``img_path``, ``dataset``, ``group``; ``gt_instances`` with ``labels`` and
            ``annotation_ids``; ``pred_instances`` with ``probabilities``; ``prompt_instances`` with ``kind`` or none.

    Raises:
        DataError: truth is missing, numbers differ, or probabilities are none.
    """
    where = f"image {sample.get('img_path') or sample.get('img_id')}"
    truth, found = sample.get("gt_instances"), sample.get("pred_instances")
    if truth is None or found is None or "labels" not in truth or "probabilities" not in found:
        raise DataError(f"the sample of {where} lacks its class or its probabilities; test a classifier with its data")
    labels = [int(label) for label in truth["labels"]]
    table = np.asarray(found["probabilities"].detach().cpu().double().numpy())
    if len(table) != len(labels):
        raise DataError(f"{where} has {len(labels)} objects but {len(table)} predictions")
    if not np.isfinite(table).all() or (len(table) and np.abs(table.sum(1) - 1).max() > SUM_TOLERANCE):
        raise DataError(f"{where}: class probabilities must be finite and sum to 1; the weights may be damaged")
    kinds = (sample.get("prompt_instances") or {}).get("kind") or [""] * len(labels)
    return [
        ClassRecord(
            str(sample.get("dataset") or ""), str(sample.get("application") or ""), str(sample.get("group") or ""),
            int(sample["img_id"]), str(sample["img_path"]), int(number), str(kind), label, tuple(map(float, row)),
        )
        for label, number, kind, row in zip(labels, truth["annotation_ids"], kinds, table, strict=True)
    ]  # fmt: skip


def unique(records: Iterable[ClassRecord]) -> list[ClassRecord]:
    """Return each object once, sorted by identity: samplers repeat samples to fill the last batch."""
    return [record for _, record in sorted({record.key: record for record in records}.items())]


def breakdown(
    records: Sequence[ClassRecord], classes: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Return every score with its 95 % interval, clustered by patient.

    Args:
        records: distinct, in an order that does not depend on the run; at least one.
        classes: names in the order of the labels.
        resamples: bootstrap samples.
        seed: of the resampling.

    Returns:
        ``rules``; ``overall`` and, with several data sets, ``datasets``: by score ``mean``, ``low``, ``high``,
        ``objects``, ``groups``, and ``counts``; ``classes``: the scores of each, with ``support`` and ``predicted``;
        ``confusion``: true class by predicted class; ``reliability``: the bins of confidence; ``absent``: classes
        without true samples.
    """
    truth, table = arrays(records)
    ones = np.ones((1, len(records)))
    overall, by_class = intervals(truth, table, [record.cluster for record in records], resamples, seed)
    matrix = confusion(truth, table.argmax(1), ones, len(classes))[0]
    found: dict[str, Any] = {
        "rules": rules(resamples, seed),
        "overall": {**overall, "counts": counts(records)},
        "datasets": {},
        "classes": {
            name: {**by_class[label], "support": int(matrix[label].sum()), "predicted": int(matrix[:, label].sum())}
            for label, name in enumerate(classes)
        },
        "confusion": matrix.astype(int).tolist(),
        "reliability": reliability(truth, table),
        "absent": [name for label, name in enumerate(classes) if not matrix[label].sum()],
    }
    slugs = sorted({record.dataset for record in records})
    for slug in slugs if len(slugs) > 1 else ():
        part = [record for record in records if record.dataset == slug]
        scores, _ = intervals(*arrays(part), [record.cluster for record in part], resamples, seed)
        found["datasets"][slug or "unnamed"] = {**scores, "counts": counts(part)}
    return found


def arrays(records: Sequence[ClassRecord]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return true labels (N,) and probabilities (N, K)."""
    truth = np.array([record.label for record in records], np.int64)
    return truth, np.array([record.probabilities for record in records], np.float64)


def counts(records: Sequence[ClassRecord]) -> dict[str, int]:
    """Return numbers of objects, images and patients."""
    return {
        "objects": len(records),
        "images": len({record.key[:3] for record in records}),
        "groups": len({record.cluster for record in records}),
    }


def intervals(
    truth: npt.NDArray[np.int64], table: npt.NDArray[np.float64], groups: Sequence[str], resamples: int, seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the intervals of the overall scores, by name, and of those of each class."""
    numbers = group_numbers(groups)
    total = int(numbers.max()) + 1
    point = score(truth, table, np.ones((1, len(truth))))
    drawn: list[Scored] = []
    if total > 1:
        part = max(_PORTION // len(truth), 1)
        for start in range(0, resamples, part):
            weights = resample_weights(total, min(part, resamples - start), seed, start)
            drawn.append(score(truth, table, weights[:, numbers]))

    def interval(value: float, values: npt.NDArray[np.float64]) -> dict[str, Any]:
        # A resample may leave a class out; its score is then undefined there.
        known = values[np.isfinite(values)]
        ends = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(known) else (math.nan, math.nan)
        if not math.isfinite(value):
            ends = (math.nan, math.nan)
        return {"mean": float(value), "low": float(ends[0]), "high": float(ends[1]),
                "objects": len(truth), "groups": total}  # fmt: skip

    def joined(pick: Any) -> npt.NDArray[np.float64]:
        return np.concatenate([pick(found) for found in drawn]) if drawn else np.zeros(0)

    overall = {
        name: interval(point.overall[name][0], joined(lambda found, name=name: found.overall[name])) for name in SCORES
    }
    by_class = [
        {
            name: interval(
                point.by_class[name][0, label],
                joined(lambda found, name=name, label=label: found.by_class[name][:, label]),
            )
            for name in CLASS_SCORES
        }
        for label in range(table.shape[1])
    ]
    return overall, by_class


def reliability(truth: npt.NDArray[np.int64], table: npt.NDArray[np.float64], bins: int = BINS) -> list[dict[str, Any]]:
    """Return, of each bin of confidence with any sample, its ends, number, accuracy and mean confidence."""
    correct = (table.argmax(1) == truth).astype(np.float64)
    number, right, sure = (part[0] for part in bin_sums(correct, table.max(1), np.ones((1, len(truth))), bins))
    return [
        {"from": place / bins, "to": (place + 1) / bins, "objects": int(number[place]),
         "accuracy": float(right[place] / number[place]), "confidence": float(sure[place] / number[place])}
        for place in range(bins) if number[place]
    ]  # fmt: skip


def rules(resamples: int, seed: int) -> dict[str, str]:
    """Return in words what was computed."""
    return {
        "macro": "Precision, recall, F1 and AUC (one class against the rest) are means over the classes with true "
        "samples, each class counting the same; precision of a class that was never predicted is 0.",
        "calibration": f"ECE: mean over samples of |accuracy - confidence| of their bin, {BINS} equal bins of the "
        "probability of the predicted class. Brier: mean squared error of the probabilities, summed over classes.",
        "intervals": f"{LEVEL:.0%} percentile bootstrap of {resamples} resamples of whole patients or videos, seed "
        f"{seed}; where a resample leaves a class out, macro means are over the others.",
    }
