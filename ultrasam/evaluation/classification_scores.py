"""Scores of class probabilities: precision, recall, F1, AUC, calibration; for weighted samples, so also for resamples.

Macro means are over the classes that have true samples. Precision of such a class that was never predicted is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SCORES = ("accuracy", "precision", "recall", "f1", "auc", "ece", "brier")
CLASS_SCORES = ("precision", "recall", "f1", "auc")
BINS = 15


@dataclass(frozen=True)
class Scored:
    """Scores of R weightings of the same samples.

    Attributes:
        overall: by name of ``SCORES``, (R,); NaN where undefined.
        by_class: by name of ``CLASS_SCORES``, (R, K); NaN for classes without true samples (of that weighting).
    """

    overall: dict[str, Floats]
    by_class: dict[str, Floats]


def confusion(truth: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], weights: Floats, classes: int) -> Floats:
    """Return confusion matrices (R, K, K), true class by predicted class.

    Args:
        truth: (N,) labels.
        predicted: (N,) labels.
        weights: (R, N).
        classes: K.
    """
    cells = np.zeros((len(truth), classes * classes))
    cells[np.arange(len(truth)), truth * classes + predicted] = 1
    return (weights @ cells).reshape(-1, classes, classes)


def rates(matrices: Floats) -> dict[str, Floats]:
    """Return precision, recall and F1 of each class, (R, K), from confusion matrices (R, K, K)."""
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    support, predicted = matrices.sum(2), matrices.sum(1)
    known = support > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(predicted > 0, hits / predicted, 0.0)
        recall = hits / support
        f1 = 2 * hits / (support + predicted)
    return {name: np.where(known, value, np.nan)
            for name, value in (("precision", precision), ("recall", recall), ("f1", f1))}  # fmt: skip


def auc_of(scores: Floats, positive: npt.NDArray[np.bool_], weights: Floats) -> Floats:
    """Return the area under the ROC curve: the share of (positive, negative) pairs in the right order, ties one half.

    Args:
        scores: (N,) higher for positive.
        positive: (N,).
        weights: (R, N).

    Returns:
        (R,), NaN where there are no positives or no negatives.
    """
    order = np.argsort(scores, kind="stable")
    ranked, sign = scores[order], positive[order]
    first = np.searchsorted(ranked, ranked, side="left")
    last = np.searchsorted(ranked, ranked, side="right")
    negatives = np.where(sign, 0.0, weights[:, order])
    below = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(negatives, axis=1)], axis=1)
    positives = np.where(sign, weights[:, order], 0.0)
    pairs = (positives * 0.5 * (below[:, first] + below[:, last])).sum(1)
    possible = positives.sum(1) * negatives.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(possible > 0, pairs / possible, np.nan)


def bin_sums(correct: Floats, confidence: Floats, weights: Floats, bins: int = BINS) -> tuple[Floats, Floats, Floats]:
    """Return weight, correct weight and summed confidence of each of ``bins`` equal bins of confidence: (R, bins)."""
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    member = np.zeros((len(place), bins))
    member[np.arange(len(place)), place] = 1
    return weights @ member, weights @ (member * correct[:, None]), weights @ (member * confidence[:, None])


def calibration_error(correct: Floats, confidence: Floats, weights: Floats, bins: int = BINS) -> Floats:
    """Return the expected calibration error (R,): the mean over samples of |accuracy - confidence| of their bin."""
    _, right, sure = bin_sums(correct, confidence, weights, bins)
    return np.abs(right - sure).sum(1) / weights.sum(1)


def score(truth: npt.NDArray[np.int64], probabilities: Floats, weights: Floats) -> Scored:
    """Return every score of each weighting.

    Args:
        truth: (N,) labels.
        probabilities: (N, K).
        weights: (R, N), how often each sample counts; no row sums to 0.
    """
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(1)
    correct = (predicted == truth).astype(np.float64)
    confidence = probabilities.max(1)
    by_class = rates(confusion(truth, predicted, weights, classes))
    by_class["auc"] = np.stack(
        [auc_of(probabilities[:, label], truth == label, weights) for label in range(classes)], axis=1
    )
    wanted = np.zeros_like(probabilities)
    wanted[np.arange(len(truth)), truth] = 1
    total = weights.sum(1)
    overall = {
        "accuracy": weights @ correct / total,
        **{name: mean_of_known(by_class[name]) for name in CLASS_SCORES},
        "ece": calibration_error(correct, confidence, weights),
        "brier": weights @ ((probabilities - wanted) ** 2).sum(1) / total,
    }
    return Scored({name: overall[name] for name in SCORES}, by_class)


def mean_of_known(values: Floats) -> Floats:
    """Return the mean (R,) of the numbers in each row of (R, K); NaN where there is none."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(1) / np.where(known.any(1), known.sum(1), np.nan)


def roc_curve(scores: Floats, positive: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return false and true positive rates from (0, 0) to (1, 1), one point for each different score."""
    order = np.argsort(-scores, kind="stable")
    sign = positive[order]
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    true, false = np.cumsum(sign)[ends], np.cumsum(~sign)[ends]
    return np.append(0.0, false / max(int((~positive).sum()), 1)), np.append(0.0, true / max(int(positive.sum()), 1))
