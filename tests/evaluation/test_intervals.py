"""Clustered bootstrap and paired permutation test against closed forms, brute force and known coverage."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from ultrasam.errors import DataError
from ultrasam.evaluation.intervals import compare_means, mean_interval, resample_weights, sign_flip_p


def test_singletons_give_the_ordinary_bootstrap():
    values = np.random.default_rng(0).normal(0.8, 0.1, 200)
    found = mean_interval(values, [str(i) for i in range(200)], resamples=4000)
    reference = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1))
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(tuple(reference.confidence_interval), abs=0.002)
    assert (found.objects, found.groups) == (200, 200)


def test_objects_of_one_patient_do_not_make_an_interval_narrower():
    patients = np.random.default_rng(0).normal(0.8, 0.1, 30)
    names = [str(i) for i in range(30)]
    single = mean_interval(patients, names)
    copied = mean_interval(np.repeat(patients, 20), np.repeat(names, 20).tolist())
    assert (copied.low, copied.high) == pytest.approx((single.low, single.high))
    naive = mean_interval(np.repeat(patients, 20), [str(i) for i in range(600)])
    assert naive.high - naive.low < 0.5 * (copied.high - copied.low)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    covered = 0
    for trial in range(200):
        sizes = rng.integers(1, 6, 40)
        effect = rng.normal(0, 1, 40)
        values = np.repeat(effect, sizes) + rng.normal(0, 0.5, sizes.sum())
        found = mean_interval(values, np.repeat(np.arange(40), sizes).astype(str).tolist(), resamples=300, seed=trial)
        covered += found.low <= 0 <= found.high
    assert 0.87 <= covered / 200 <= 0.99


def test_undefined_values_and_few_groups():
    found = mean_interval(np.array([1.0, math.nan, 3.0]), ["a", "b", "a"])
    assert (found.mean, found.objects, found.groups) == (2.0, 2, 1)
    assert math.isnan(found.low)
    assert math.isnan(mean_interval(np.array([math.nan]), ["a"]).mean)
    with pytest.raises(DataError, match="group"):
        mean_interval(np.zeros(3), ["a"])


def test_resamples_do_not_depend_on_how_they_are_drawn():
    whole = resample_weights(7, 10, seed=3)
    parts = np.concatenate([resample_weights(7, 4, 3), resample_weights(7, 6, 3, start=4)])
    np.testing.assert_array_equal(whole, parts)
    assert (whole.sum(axis=1) == 7).all()


def test_small_permutation_tests_are_exact():
    sums = np.random.default_rng(1).normal(0.5, 1, 9)
    totals = [abs(np.dot(signs, sums)) for signs in itertools.product([-1, 1], repeat=9)]
    expected = np.mean([total >= abs(sums.sum()) - 1e-12 for total in totals])
    assert sign_flip_p(sums, 10_000, 0) == pytest.approx(expected)
    drawn = sign_flip_p(sums, 500, 0)  # fewer than 2^9: drawn, not complete
    assert drawn == pytest.approx(expected, abs=0.06)


def test_a_drawn_permutation_test_agrees_with_scipy():
    difference = np.random.default_rng(2).normal(0.15, 1, 60)
    reference = stats.permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=9999, rng=np.random.default_rng(0)
    )
    found = compare_means(np.zeros(60), difference, [str(i) for i in range(60)])
    assert found.p_value == pytest.approx(reference.pvalue, abs=0.02)
    assert found.difference == pytest.approx(difference.mean())


def test_equal_models_differ_by_nothing_and_a_clear_gain_is_significant():
    values, groups = np.random.default_rng(0).random(50), [str(i // 2) for i in range(50)]
    same = compare_means(values, values, groups)
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    better = compare_means(values, values + 0.1, groups)
    assert better.low == pytest.approx(0.1)
    assert better.p_value < 0.001
    worse = compare_means(values + 0.1, values, groups)
    assert worse.difference == pytest.approx(-better.difference)
    with pytest.raises(DataError, match="same objects"):
        compare_means(values, values[:3], groups)
