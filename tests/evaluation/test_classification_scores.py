"""Scores of classes against brute force and published examples, and their intervals against drawn samples."""

import math

import numpy as np
import pytest

from ultrasam.errors import DataError
from ultrasam.evaluation.classification import ClassRecord, breakdown, records_of, unique
from ultrasam.evaluation.classification_scores import SCORES, auc_of, calibration_error, roc_curve, score
from ultrasam.evaluation.intervals import resample_weights


def random_case(seed, samples=60, classes=4, missing=()):
    rng = np.random.default_rng(seed)
    truth = rng.choice([k for k in range(classes) if k not in missing], samples)
    table = rng.dirichlet(np.ones(classes), samples).round(2) + 1e-3
    return truth, table / table.sum(1, keepdims=True)


def brute_scores(truth, table):
    """Scores by loops over samples, classes and pairs."""
    classes = table.shape[1]
    predicted = [int(np.argmax(row)) for row in table]
    precision, recall, f1, auc = [], [], [], []
    for k in range(classes):
        support = [t == k for t in truth]
        if not any(support):
            continue
        hits = sum(t == k and p == k for t, p in zip(truth, predicted, strict=True))
        called = sum(p == k for p in predicted)
        precision.append(hits / called if called else 0.0)
        recall.append(hits / sum(support))
        f1.append(2 * hits / (called + sum(support)))
        pairs = [
            1.0 if a > b else 0.5 if a == b else 0.0
            for a, i in zip(table[:, k], support, strict=True) if i
            for b, j in zip(table[:, k], support, strict=True) if not j
        ]  # fmt: skip
        if pairs:
            auc.append(np.mean(pairs))
    ece = 0.0
    for number in range(15):
        inside = [
            n for n, row in enumerate(table)
            if number / 15 <= row.max() < (number + 1) / 15 or (number == 14 and row.max() == 1)
        ]  # fmt: skip
        if inside:
            right = np.mean([predicted[n] == truth[n] for n in inside])
            ece += len(inside) / len(truth) * abs(right - np.mean([table[n].max() for n in inside]))
    return {
        "accuracy": np.mean([t == p for t, p in zip(truth, predicted, strict=True)]),
        "precision": np.mean(precision), "recall": np.mean(recall), "f1": np.mean(f1),
        "auc": np.mean(auc) if auc else math.nan, "ece": ece,
        "brier": np.mean([((row - np.eye(classes)[t]) ** 2).sum() for t, row in zip(truth, table, strict=True)]),
    }  # fmt: skip


@pytest.mark.parametrize("missing", [(), (2,), (0, 1, 2)])
def test_scores_against_brute_force(missing):
    truth, table = random_case(len(missing), missing=missing)
    found = score(truth, table, np.ones((1, len(truth)))).overall
    expected = brute_scores(truth, table)
    assert set(found) == set(SCORES)
    for name in SCORES:
        assert found[name][0] == pytest.approx(expected[name], abs=1e-12, nan_ok=True), name


def test_published_examples():
    """The examples of scikit-learn's documentation of its AUC and macro F1."""
    positive = np.array([False, False, True, True])
    values = np.array([0.1, 0.4, 0.35, 0.8])
    assert auc_of(values, positive, np.ones((1, 4)))[0] == 0.75
    truth, predicted = np.array([0, 1, 2, 0, 1, 2]), np.array([0, 2, 1, 0, 0, 1])
    found = score(truth, np.eye(3)[predicted], np.ones((1, 6))).overall
    assert found["f1"][0] == pytest.approx(0.2666666, abs=1e-6)
    assert found["precision"][0] == pytest.approx(0.2222222, abs=1e-6)
    assert found["recall"][0] == pytest.approx(1 / 3)


def test_weights_are_repetitions():
    truth, table = random_case(7)
    weights = np.random.default_rng(0).integers(0, 3, (3, len(truth))).astype(float)
    found = score(truth, table, weights).overall
    for row in range(3):
        repeated = np.repeat(np.arange(len(truth)), weights[row].astype(int))
        expected = brute_scores(truth[repeated], table[repeated])
        for name in SCORES:
            assert found[name][row] == pytest.approx(expected[name], abs=1e-12), name


def test_calibration_by_hand():
    confidence, correct = np.array([0.9, 0.9, 0.9, 0.9, 0.5, 0.5]), np.array([1.0, 1, 1, 0, 1, 0])
    found = calibration_error(correct, confidence, np.ones((1, 6)))
    assert found[0] == pytest.approx((4 * 0.15 + 2 * 0.0) / 6)


def test_roc_encloses_the_auc():
    truth, table = random_case(3, classes=2)
    false, true = roc_curve(table[:, 1], truth == 1)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    area = np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2)
    assert area == pytest.approx(auc_of(table[:, 1], truth == 1, np.ones((1, len(truth))))[0])


def records(truth, table, groups=None):
    return [
        ClassRecord("set", "", str(groups[n] if groups is not None else n), n, f"{n}.png", 0, "", int(t), tuple(row))
        for n, (t, row) in enumerate(zip(truth, table.tolist(), strict=True))
    ]


def test_intervals_resample_whole_patients():
    truth, table = random_case(5, samples=40, classes=3)
    groups = np.arange(40) // 4
    found = breakdown(records(truth, table, groups), ["a", "b", "c"], resamples=50)
    drawn = resample_weights(10, 50, 0)
    # Groups are numbered by their sorted names: "set/0" to "set/9".
    values = []
    for row in drawn:
        repeated = np.repeat(np.arange(40), row[groups].astype(int))
        values.append(brute_scores(truth[repeated], table[repeated]))
    for name in SCORES:
        low, high = np.quantile([value[name] for value in values], [0.025, 0.975])
        part = found["overall"][name]
        assert (part["low"], part["high"]) == pytest.approx((low, high), abs=1e-12)
        assert (part["objects"], part["groups"]) == (40, 10)


def test_classes_without_samples_are_said_and_left_out():
    truth, table = random_case(1, missing=(1, 3))
    found = breakdown(records(truth, table), ["a", "b", "c", "d"], resamples=20)
    assert found["absent"] == ["b", "d"]
    assert math.isnan(found["classes"]["b"]["recall"]["mean"]) and found["classes"]["b"]["support"] == 0
    assert found["classes"]["b"]["predicted"] > 0
    assert found["overall"]["f1"]["mean"] == pytest.approx(brute_scores(truth, table)["f1"])
    assert sum(map(sum, found["confusion"])) == len(truth)


def test_one_class_only():
    table = np.array([[0.7, 0.3], [0.4, 0.6]])
    found = breakdown(records([0, 0], table), ["a", "b"], resamples=10)
    assert math.isnan(found["overall"]["auc"]["mean"]) and math.isnan(found["overall"]["auc"]["low"])
    assert found["overall"]["recall"]["mean"] == 0.5


def test_one_patient_has_no_interval():
    truth, table = random_case(2)
    found = breakdown(records(truth, table, np.zeros(len(truth), int)), ["a", "b", "c", "d"], resamples=10)
    assert math.isnan(found["overall"]["f1"]["low"]) and math.isfinite(found["overall"]["f1"]["mean"])


def test_reliability_bins_hold_all_samples():
    truth, table = random_case(4)
    bins = breakdown(records(truth, table), ["a", "b", "c", "d"], resamples=0)["reliability"]
    assert sum(part["objects"] for part in bins) == len(truth)
    assert all(part["from"] <= part["confidence"] <= part["to"] for part in bins)


def test_repeated_samples_count_once():
    truth, table = random_case(6, samples=5)
    listed = records(truth, table)
    assert unique([*listed, listed[2], listed[0]]) == sorted(listed, key=lambda record: record.key)


def test_damaged_probabilities_are_refused():
    import torch

    sample = {"img_id": 1, "img_path": "a.png", "gt_instances": {"labels": torch.tensor([0]), "annotation_ids": [0]},
              "pred_instances": {"probabilities": torch.tensor([[float("nan"), 0.5]])}}  # fmt: skip
    with pytest.raises(DataError, match=r"a\.png: class probabilities must be finite"):
        records_of(sample)
    sample["pred_instances"] = {"probabilities": torch.zeros(2, 2)}
    with pytest.raises(DataError, match="1 objects but 2 predictions"):
        records_of(sample)
