"""Two models on the same objects: means by hand, average precision against the summary, honest p-values, refusals."""

import dataclasses

import numpy as np
import pytest
from test_precision_interval import random_records

from ultrasam.cli.main import main
from ultrasam.errors import DataError
from ultrasam.evaluation.breakdown import breakdown
from ultrasam.evaluation.compare import compare_folders
from ultrasam.evaluation.measures import MEASURES, measure_all
from ultrasam.evaluation.records import ObjectRecord
from ultrasam.evaluation.results import Evaluation, read_per_object, write_objects
from ultrasam.evaluation.summary import summarise


def written(folder, records):
    measures = measure_all(records)
    found = breakdown(records, measures, resamples=20, precision_resamples=0)
    write_objects(folder, Evaluation(records, measures, found))
    return folder


def worse(records: list[ObjectRecord], seed=0) -> list[ObjectRecord]:
    """Take every third prediction away and shuffle the scores."""
    rng = np.random.default_rng(seed)
    shuffled = [dataclasses.replace(record, score=float(rng.random())) for record in records]
    return [dataclasses.replace(r, mask=None, score=0.0) if n % 3 == 0 else r for n, r in enumerate(shuffled)]


def test_differences_are_those_of_the_two_summaries(tmp_path):
    one, two = random_records(4, images=30), worse(random_records(4, images=30))
    found = compare_folders(written(tmp_path / "a", one), written(tmp_path / "b", two))
    first, second = summarise(one), summarise(two)
    for name in ("segm_mAP", "segm_mAP_50", "bbox_mAP", "bbox_mAP_50"):
        assert found[name].difference == pytest.approx(second[name] - first[name], abs=1e-9)
        assert found[name].low <= found[name].difference <= found[name].high
    assert found["dice"].difference == pytest.approx(second["mean_dice"] - first["mean_dice"])
    assert found["segm_mAP"].p_value < 0.05 and found["dice"].p_value < 0.05
    assert found["dice"].groups == 15
    assert "hd95_mm" not in found


def test_a_model_equals_itself(tmp_path):
    records = random_records(2, images=10)
    found = compare_folders(written(tmp_path / "a", records), written(tmp_path / "b", records))
    for item in found.values():
        assert (item.difference, item.low, item.high, item.p_value) == (0, 0, 0, 1)


def test_reading_gives_what_was_written(tmp_path):
    records = random_records(1)
    rows = read_per_object(written(tmp_path, records))
    measures = measure_all(records)
    assert [row.score for row in rows] == [record.score for record in records]
    for row, found in zip(rows, measures, strict=True):
        np.testing.assert_array_equal([row.values[name] for name in MEASURES], dataclasses.astuple(found))
    missing = [row.hits["segm"] is None for row in rows]
    assert missing == [record.mask is None for record in records]


def test_results_on_other_objects_are_refused(tmp_path):
    records = random_records(1)
    a, b = written(tmp_path / "a", records), written(tmp_path / "b", records[1:])
    with pytest.raises(DataError, match="1 are missing in the second"):
        compare_folders(a, b)
    with pytest.raises(DataError, match="has 1 others"):
        compare_folders(b, a)
    moved = [dataclasses.replace(r, group="x") for r in records]
    with pytest.raises(DataError, match="patient"):
        compare_folders(a, written(tmp_path / "c", moved))


def test_the_verb_prints_and_writes_a_table(tmp_path, capsys):
    records = random_records(3)
    a, b = written(tmp_path / "a", records), written(tmp_path / "b", worse(records))
    assert main(["compare", str(a), str(b), "--out", str(tmp_path / "c.csv")]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"wrote {tmp_path / 'c.csv'}"
    assert "segm_mAP" in out and "hd95" in out
    assert (tmp_path / "c.csv").read_text().startswith("score,difference,low,high,p_value,objects,groups\nsegm_mAP,")
    assert main(["compare", str(a), str(tmp_path / "none")]) == 2
    assert "per_object.csv does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(("spoil", "words"), [
    (lambda text: text.replace("segm_hits", "hits"), "segm_hits"),
    (lambda text: text + text.splitlines()[-1] + "\n", "more than one line"),
    (lambda text: text.replace(",1111", ",1211", 1), "damaged"),
])  # fmt: skip
def test_a_damaged_table_is_named(tmp_path, spoil, words):
    path = written(tmp_path, random_records(3)) / "per_object.csv"
    text = spoil(path.read_text())
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_per_object(tmp_path)
