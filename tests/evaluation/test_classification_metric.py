"""The metrics of classification and regression as a test loop calls them, and the pages they write."""

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from ultrasam.engine.setup import register_all

register_all()

from mmdet.structures import DetDataSample  # noqa: E402

from ultrasam.errors import ConfigError, DataError  # noqa: E402
from ultrasam.evaluation.classification_metric import ClassificationMetric  # noqa: E402
from ultrasam.evaluation.regression_metric import RegressionMetric  # noqa: E402


def sample(number, labels, table, classes=("a<b", "c"), dataset="set", kind=None):
    about = dict(img_id=number, img_path=f"/data/{number}.png", dataset=dataset, group=f"p{number // 2}",
                 classes=classes)  # fmt: skip
    found = DetDataSample(metainfo=about)
    found.gt_instances = InstanceData(labels=torch.tensor(labels), annotation_ids=list(range(len(labels))))
    found.pred_instances = InstanceData(probabilities=torch.tensor(table).reshape(len(labels), -1))
    if kind:
        found.prompt_instances = InstanceData(kind=[kind] * len(labels))
    return found.to_dict()


def value(number, true, predicted, unit="mm"):
    about = dict(img_id=number, img_path=f"/data/{number}.png", dataset="set", group=str(number), value_unit=unit)
    found = DetDataSample(metainfo=about)
    found.gt_instances = InstanceData(measured=torch.tensor([true]))
    found.pred_instances = InstanceData(
        measured=torch.tensor([predicted]), deviations=torch.tensor([float("nan")])
    )
    return found.to_dict()


def samples(count, dataset="set", **more):
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        p = rng.uniform(0.05, 0.95)
        found.append(sample(number, [number % 2], [[1 - p, p]], dataset=dataset, **more))
    return found


def test_repeated_samples_and_order_change_nothing():
    plain, mixed = ClassificationMetric(resamples=20), ClassificationMetric(resamples=20)
    listed = samples(8)
    plain.process(None, listed)
    mixed.process(None, [*listed[::-1], listed[3], listed[0]])
    first, second = plain.evaluate(8), mixed.evaluate(8)
    assert first == second and first["classification/objects"] == 8
    assert first["classification/f1_low"] <= first["classification/f1"] <= first["classification/f1_high"]
    assert plain.results == []


def test_without_resamples_only_the_scores_are_logged():
    metric = ClassificationMetric(resamples=0)
    metric.process(None, samples(4))
    assert not [name for name in metric.evaluate(4) if name.endswith(("_low", "_high"))]


def test_data_sets_are_told_apart(tmp_path):
    metric = ClassificationMetric(resamples=10)
    metric.process(None, [*samples(4, "one"), *samples(6, "two")])
    scores = metric.evaluate(10)
    assert (scores["classification/one/objects"], scores["classification/two/objects"]) == (4, 6)
    metric.write_results(tmp_path, {"config": "/srv/someone/c.py"}, "A <title>")
    page = (tmp_path / "report.html").read_text()
    assert "A &lt;title&gt;" in page and "a&lt;b" in page and "<b>" in page and "a<b" not in page
    assert "/srv/someone" not in page and "c.py" in page


def test_prompts_are_named_on_the_page(tmp_path):
    metric = ClassificationMetric(resamples=5)
    metric.process(None, samples(4, kind="box"))
    metric.evaluate(4)
    metric.write_results(tmp_path, {}, "t")
    assert "prompt: box" in (tmp_path / "report.html").read_text()


def test_what_classification_refuses():
    with pytest.raises(ConfigError, match="must not be negative"):
        ClassificationMetric(resamples=-1)
    metric = ClassificationMetric()
    with pytest.raises(DataError, match="carry no objects to classify"):
        metric.evaluate(0)
    metric.process(None, samples(1))
    with pytest.raises(DataError, match="give all data sets of a test the same classes"):
        metric.process(None, [sample(1, [0], [[0.5, 0.5]], classes=("x", "y"))])
    assert ClassificationMetric().write_results("nowhere", {}, "t") == []


def test_regression(tmp_path):
    metric = RegressionMetric(resamples=10)
    metric.process(None, [value(n, 10.0 * n, 10.0 * n + (-1) ** n) for n in range(1, 7)])
    scores = metric.evaluate(6)
    assert scores["regression/mae"] == pytest.approx(1.0) and scores["regression/bias"] == pytest.approx(0.0)
    assert "regression/coverage_95" not in scores
    metric.write_results(tmp_path, {}, "t")
    page = (tmp_path / "report.html").read_text()
    assert "Bland-Altman" in page and "MAE, mm" in page


def test_what_regression_refuses():
    with pytest.raises(ConfigError, match="must not be negative"):
        RegressionMetric(resamples=-1)
    metric = RegressionMetric()
    with pytest.raises(DataError, match="no images with values"):
        metric.evaluate(0)
    metric.process(None, [value(1, 1.0, 1.0)])
    with pytest.raises(DataError, match="is measured in 'cm', samples before it in 'mm'"):
        metric.process(None, [value(2, 1.0, 1.0, "cm")])
