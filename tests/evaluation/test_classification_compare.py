"""Comparison of two classifiers: paired by patient, and refusals."""

import json

import numpy as np
import pytest

from ultrasam.errors import DataError
from ultrasam.evaluation.classification import Classified, ClassRecord, breakdown
from ultrasam.evaluation.classification_compare import compare_classifiers, main
from ultrasam.evaluation.classification_files import read_classification, write_classification
from ultrasam.evaluation.classification_scores import score

CLASSES = ("benign", "malignant")


def written(folder, truth, table, *, prompt="", objects=None, classes=CLASSES):
    """Write the files of a test: two samples a patient, sample n on image n unless ``objects`` says otherwise."""
    records = [
        ClassRecord("set", "", f"p{n // 2:02d}", n, f"/data/{n}.png", 0 if not prompt else n + 1, prompt, int(t),
                    tuple(row))
        for n, (t, row) in enumerate(zip(truth, table.tolist(), strict=True))
    ]  # fmt: skip
    if objects:
        records.append(ClassRecord("set", "", "p00", 0, "/data/0.png", 99, prompt, 0, (0.5, 0.5)))
    found = breakdown(records, classes, resamples=5)
    write_classification(folder, Classified(records, tuple(classes), found), {}, "title")
    return folder


def two_models(samples=60, good=0.0, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, samples)
    lean = [(2 * truth - 1) * shift + rng.normal(0, 1, samples) for shift in (0.2, 0.2 + good)]
    return truth, *(np.stack([1 / (1 + np.exp(x)), 1 / (1 + np.exp(-x))], axis=1) for x in lean)


def test_tables_come_back_exactly(tmp_path):
    truth, table, _ = two_models(9)
    names, records = read_classification(written(tmp_path, truth, table))
    assert names == CLASSES and [record.label for record in records] == truth.tolist()
    assert np.array_equal([record.probabilities for record in records], table)


def test_a_better_model_is_found_and_two_alike_are_not(tmp_path):
    truth, first, better = two_models(good=2.0)
    one, two = written(tmp_path / "a", truth, first), written(tmp_path / "b", truth, better, prompt="box")
    found = compare_classifiers(one, two, resamples=200, permutations=200)
    assert (found["objects"], found["groups"]) == (60, 30)
    for name in ("f1", "auc"):
        part = found[name]
        expected = [score(truth, table, np.ones((1, 60))).overall[name][0] for table in (first, better)]
        assert (part["first"], part["second"]) == pytest.approx(expected)
        assert part["difference"] == pytest.approx(expected[1] - expected[0])
        assert 0 < part["low"] < part["difference"] < part["high"] and part["p_value"] < 0.02
    same = compare_classifiers(one, one, resamples=20, permutations=20)
    assert same["f1"]["difference"] == same["f1"]["low"] == same["f1"]["high"] == 0 and same["f1"]["p_value"] == 1


def test_p_values_are_uniform_where_nothing_differs(tmp_path):
    """With models that differ by chance only, small p-values are as rare as they say."""
    low = 0
    for seed in range(20):
        truth, first, second = two_models(24, seed=seed)
        folder = tmp_path / str(seed)
        found = compare_classifiers(written(folder / "a", truth, first), written(folder / "b", truth, second),
                                    resamples=2, permutations=60)  # fmt: skip
        low += found["accuracy"]["p_value"] < 0.1
    assert low <= 6


def test_what_cannot_be_compared(tmp_path):
    truth, first, second = two_models(8)
    plain = written(tmp_path / "a", truth, first)
    with pytest.raises(DataError, match="has the classes"):
        compare_classifiers(plain, written(tmp_path / "b", truth, second, classes=("x", "y")))
    with pytest.raises(DataError, match="differ in 2 objects"):
        compare_classifiers(plain, written(tmp_path / "c", truth[:6], second[:6]))
    with pytest.raises(DataError, match="disagree on the true class"):
        compare_classifiers(plain, written(tmp_path / "d", 1 - truth, second))
    with pytest.raises(DataError, match="has images with several objects"):
        compare_classifiers(plain, written(tmp_path / "e", truth, second, prompt="box", objects=2))
    with pytest.raises(DataError, match="does not exist"):
        compare_classifiers(plain, tmp_path / "none")
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "per_object.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="is no table of a classifier's test"):
        compare_classifiers(plain, tmp_path / "f")


def test_command(tmp_path, capsys, monkeypatch):
    import ultrasam.evaluation.classification_compare as module

    monkeypatch.setattr(module.compare_classifiers, "__kwdefaults__",
                        {**module.compare_classifiers.__kwdefaults__, "resamples": 20, "permutations": 20})  # fmt: skip
    truth, first, second = two_models(8)
    one, two = written(tmp_path / "a", truth, first), written(tmp_path / "b", truth, second)
    assert main([str(one), str(two)]) == 0
    assert "8 objects of 4 patients" in capsys.readouterr().out
    assert main([str(one), str(two), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["f1"]) == {"first", "second", "difference", "low", "high", "p_value"}
    assert main([str(one), str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
