"""The benchmark of the evaluation: what is timed is the same work, and the command's numbers and errors."""

import json

import numpy as np
import pytest

from ultrasam.errors import DataError
from ultrasam.evaluation import benchmark
from ultrasam.evaluation.records import measured, records_of
from ultrasam.evaluation.summary import average_precision


def test_synthetic_images_are_as_promised():
    rng = np.random.default_rng(3)
    samples = [benchmark.synthetic_sample(rng, number) for number in range(12)]
    counts = [len(sample["gt_instances"]["rles"]) for sample in samples]
    assert {1, 4} <= set(counts) <= {1, 2, 3, 4}
    records = [record for sample in samples for record in records_of(sample)]
    assert all(540 <= r.truth["size"][0] <= 660 and 720 <= r.truth["size"][1] <= 880 for r in records)
    assert all(r.truth_area > 500 for r in records)
    assert 0.6 < np.mean([r.iou for r in records]) < 0.98


def test_objects_of_the_average_precision():
    records = measured(benchmark.coco_records(40))
    images, truths, predictions = benchmark.coco_inputs(records)
    assert len(records) == len(truths) == len(predictions) == 40 and len({r.key for r in records}) == 40
    assert {row["image_id"] for row in truths} <= {image["id"] for image in images}
    for iou_type in ("segm", "bbox"):
        expected = benchmark.pycocotools_precision(images, truths, predictions, iou_type)
        assert average_precision(records, iou_type)["mAP"] == pytest.approx(expected, abs=1e-9)


def test_command(tmp_path, capsys, monkeypatch):
    out = tmp_path / "numbers.json"
    assert benchmark.main(["--images", "3", "--objects", "20", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["scores"]["images"] == 3 and found["coco"]["objects"] == 20
    assert [row["step"] for row in found["scores"]["steps"]] == ["records", "summary", "measures", "breakdown"]
    shown = capsys.readouterr().out
    assert f"{found['scores']['images_per_second']:.1f} images/s" in shown
    assert f"{found['coco']['share_of_wall']:.3f}, CPU" in shown
    assert benchmark.main(["--images", "0"]) == 2
    assert capsys.readouterr().err == "error: --images must be at least 1, found 0\n"
    monkeypatch.setattr(benchmark, "pycocotools_precision", lambda *_: 0.123)
    with pytest.raises(DataError, match=r"0\.123 by pycocotools"):
        benchmark.time_coco(5)
