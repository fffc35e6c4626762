"""Errors of values against plain NumPy, closed forms, and their intervals against drawn samples."""

import math

import numpy as np
import pytest
import torch

from ultrasam.errors import DataError
from ultrasam.evaluation.intervals import resample_weights
from ultrasam.evaluation.regression import SCORES, ValueRecord, breakdown, errors, record_of, unique
from ultrasam.visualization.agreement import bland_altman


def case(seed=0, samples=30):
    rng = np.random.default_rng(seed)
    values = rng.uniform(50, 300, samples)
    return values, values + rng.normal(3, 10, samples), np.full(samples, 12.0)


def plain_errors(values, predicted, deviations):
    difference = predicted - values
    spread = difference.std(ddof=1)
    return {
        "mae": np.abs(difference).mean(), "rmse": math.sqrt((difference**2).mean()),
        "r2": 1 - (difference**2).sum() / ((values - values.mean()) ** 2).sum(), "bias": difference.mean(),
        "limit_low": difference.mean() - 1.96 * spread, "limit_high": difference.mean() + 1.96 * spread,
        "mae_percent": 100 * np.mean(np.abs(difference) / values),
        "coverage_95": np.mean(np.abs(difference) <= 1.96 * deviations),
    }  # fmt: skip


def test_errors_against_numpy_also_for_repetitions():
    columns = case()
    weights = np.vstack([np.ones(30), np.random.default_rng(1).integers(0, 3, 30)])
    found = errors(*columns, weights)
    for row in range(2):
        repeated = np.repeat(np.arange(30), weights[row].astype(int))
        expected = plain_errors(*(column[repeated] for column in columns))
        assert set(expected) == set(SCORES)
        for name in SCORES:
            assert found[name][row] == pytest.approx(expected[name], rel=1e-9), name


def test_perfect_and_mean_predictions():
    values, _, deviations = case()
    perfect = errors(values, values, deviations, np.ones((1, 30)))
    assert perfect["mae"][0] == 0 and perfect["r2"][0] == 1 and perfect["limit_high"][0] == 0
    mean = errors(values, np.full(30, values.mean()), deviations, np.ones((1, 30)))
    assert mean["r2"][0] == pytest.approx(0, abs=1e-9)


def test_undefined_scores_are_nan():
    same = np.full(4, 7.0)
    found = errors(same, same + 1, np.full(4, np.nan), np.ones((1, 4)))
    assert math.isnan(found["r2"][0]) and math.isnan(found["coverage_95"][0]) and found["mae"][0] == 1
    zero = errors(np.array([0.0, 1.0]), np.array([1.0, 1.0]), np.full(2, np.nan), np.ones((1, 2)))
    assert math.isnan(zero["mae_percent"][0])


def records(values, predicted, deviations, per_group=1):
    return [
        ValueRecord("set", f"{n // per_group:02d}", n, f"{n}.png", float(v), float(p), float(d))
        for n, (v, p, d) in enumerate(zip(values, predicted, deviations, strict=True))
    ]


def test_intervals_resample_whole_patients():
    columns = case()
    found = breakdown(records(*columns, per_group=3), resamples=40)["overall"]
    drawn = resample_weights(10, 40, 0)
    values = []
    for row in drawn:
        repeated = np.repeat(np.arange(30), row[np.arange(30) // 3].astype(int))
        values.append(plain_errors(*(column[repeated] for column in columns)))
    for name in SCORES:
        low, high = np.quantile([value[name] for value in values], [0.025, 0.975])
        assert (found[name]["low"], found[name]["high"]) == pytest.approx((low, high), rel=1e-9), name
    assert found["counts"] == {"objects": 30, "images": 30, "groups": 10}


def test_repeated_samples_count_once():
    listed = records(*case(samples=4))
    assert len(unique([*listed, listed[0]])) == 4


def test_damaged_predictions_are_refused():
    sample = {"img_id": 1, "img_path": "a.png", "gt_instances": {"measured": torch.tensor([1.0])},
              "pred_instances": {"measured": torch.tensor([float("inf")]), "deviations": torch.ones(1)}}  # fmt: skip
    with pytest.raises(DataError, match=r"a\.png: value 1\.0 and prediction inf must be finite"):
        record_of(sample)
    with pytest.raises(DataError, match="lacks its value"):
        record_of({**sample, "gt_instances": {}})


def test_bland_altman_places():
    """The mean of 100 and 110 is 105, the difference 10: halfway between the ends of both axes here."""
    truth, predicted = np.array([95.0, 100.0, 105.0]), np.array([105.0, 110.0, 115.0])
    nan = math.nan
    svg = bland_altman(truth, predicted, [("mean", 10.0, nan, nan), ("limit", 20.0, nan, nan)], "mm", standalone=True)
    assert svg.startswith("<svg") and svg.count("<circle") == 3 and svg.count("<rect") == 1
    assert 'xmlns="http://www.w3.org/2000/svg"' in svg and "mean of true and predicted (mm)" in svg
    middle = (58 + 520 - 92) / 2
    assert f'cx="{middle:.1f}" cy="104.0"' in svg
