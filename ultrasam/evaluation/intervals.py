"""Confidence intervals and paired tests that respect that objects of one patient belong together.

What is resampled is the group (patient, video, volume), never the single object: objects of one patient are alike,
and an interval over objects would be too narrow. The statistic stays the mean over objects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ultrasam.errors import DataError

Values = npt.NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.95
# Resamples are drawn in portions, so that many groups need little memory.
_PORTION = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval.

    Attributes:
        mean: over objects.
        low: lower end; NaN where there are fewer than two groups.
        high: upper end.
        objects: number of objects.
        groups: number of groups.
    """

    mean: float
    low: float
    high: float
    objects: int
    groups: int


@dataclass(frozen=True)
class Comparison:
    """The difference of two models on the same objects, second minus first.

    Attributes:
        difference: mean over objects.
        low: lower end of its bootstrap interval.
        high: upper end.
        p_value: two-sided, of the permutation test that swaps the two models for whole groups.
        objects: number of objects.
        groups: number of groups.
    """

    difference: float
    low: float
    high: float
    p_value: float
    objects: int
    groups: int


def group_numbers(groups: Sequence[str]) -> npt.NDArray[np.int64]:
    """Number the groups 0, 1, ... in sorted order: (N,) names to (N,) numbers."""
    return np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)[1].astype(np.int64)


@lru_cache(maxsize=2)
def resample_weights(groups: int, resamples: int, seed: int, start: int = 0) -> npt.NDArray[np.float64]:
    """Return how often each group is drawn in each resample: (resamples, groups), not to be written to.

    Resample k depends on the seed and ``start + k`` alone, so portions can be drawn in any order. The last answers are
    kept, because many scores of one set of groups are resampled one after the other.
    """
    weights = np.empty((resamples, groups))
    for row in range(resamples):
        rng = np.random.default_rng([seed, start + row])
        weights[row] = np.bincount(rng.integers(0, groups, groups), minlength=groups)
    weights.flags.writeable = False
    return weights


def mean_interval(
    values: Values, groups: Sequence[str], *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> Interval:
    """Return the mean of finite values and its percentile bootstrap interval over groups.

    Args:
        values: (N,), one an object; NaN (undefined) is left out.
        groups: (N,) names.
        resamples: number of bootstrap samples.
        level: of confidence.
        seed: of the resampling; the same seed gives the same interval on every machine and process count.

    Raises:
        DataError: the lengths differ.
    """
    values, numbers = _finite(values, groups)
    if not len(values):
        return Interval(math.nan, math.nan, math.nan, 0, 0)
    sums, counts = _per_group(values, numbers)
    if len(sums) < 2:
        return Interval(float(values.mean()), math.nan, math.nan, len(values), len(sums))
    means = _resampled_means(sums, counts, resamples, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high), len(values), len(sums))


def compare_means(
    first: Values,
    second: Values,
    groups: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    permutations: int = 10_000,
    level: float = LEVEL,
    seed: int = 0,
) -> Comparison:
    """Compare two models object by object; objects undefined for either are left out.

    The permutation test exchanges the two models for whole groups, which is what "there is no difference" allows.
    All 2^G exchanges are made where they are no more than ``permutations``; otherwise that many are drawn, and the
    p-value counts the observed one among them.

    Args:
        first: (N,) values of the first model.
        second: (N,) values of the second model on the same objects.
        groups: (N,) names.
        resamples: number of bootstrap samples.
        permutations: number of exchanges.
        level: of confidence.
        seed: of resampling and permutation.

    Raises:
        DataError: the lengths differ.
    """
    if len(first) != len(second):
        raise DataError(f"Two models are compared on the same objects, found {len(first)} and {len(second)} values.")
    difference = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    interval = mean_interval(difference, groups, resamples=resamples, level=level, seed=seed)
    values, numbers = _finite(difference, groups)
    if not len(values):
        return Comparison(math.nan, math.nan, math.nan, math.nan, 0, 0)
    sums, _ = _per_group(values, numbers)
    return Comparison(
        interval.mean, interval.low, interval.high, sign_flip_p(sums, permutations, seed), len(values), len(sums)
    )


def sign_flip_p(sums: Values, permutations: int, seed: int) -> float:
    """Return the two-sided p-value of the sum of (G,) group sums under random signs."""
    observed = abs(float(sums.sum())) * (1 - 1e-12)
    count = len(sums)
    if 2 ** min(count, 62) <= permutations:
        numbers = np.arange(2**count)[:, None] >> np.arange(count) & 1
        return float((np.abs((1.0 - 2.0 * numbers) @ sums) >= observed).mean())
    rng = np.random.default_rng([seed, 1])
    extreme, left = 0, permutations
    while left:
        part = min(left, max(_PORTION // count, 1))
        signs = rng.integers(0, 2, (part, count), dtype=np.int8).astype(np.float64) * 2 - 1
        extreme += int((np.abs(signs @ sums) >= observed).sum())
        left -= part
    return (extreme + 1) / (permutations + 1)


def _resampled_means(sums: Values, counts: Values, resamples: int, seed: int) -> Values:
    """Return the mean over objects of each resample of groups."""
    means = []
    part = max(_PORTION // len(sums), 1)
    for start in range(0, resamples, part):
        weights = resample_weights(len(sums), min(part, resamples - start), seed, start)
        means.append((weights @ sums) / (weights @ counts))
    return np.concatenate(means)


def _per_group(values: Values, numbers: npt.NDArray[np.int64]) -> tuple[Values, Values]:
    """Return sum and number of the values of each group that has any."""
    _, numbers = np.unique(numbers, return_inverse=True)
    return np.bincount(numbers, values).astype(np.float64), np.bincount(numbers).astype(np.float64)


def _finite(values: Values, groups: Sequence[str]) -> tuple[Values, npt.NDArray[np.int64]]:
    """Return the defined values and the numbers of their groups."""
    values = np.asarray(values, np.float64)
    if len(values) != len(groups):
        raise DataError(f"Every value needs its group, found {len(values)} values and {len(groups)} groups.")
    kept = np.isfinite(values)
    return values[kept], group_numbers(groups)[kept] if len(values) else np.zeros(0, np.int64)
