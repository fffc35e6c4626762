"""The page of a test: whole, with the numbers of the breakdown, and free of paths and pictures where asked."""

import dataclasses
from html.parser import HTMLParser

import numpy as np
import pytest
from test_precision_interval import SIZE, random_records

from ultrasam.errors import DataError
from ultrasam.evaluation.breakdown import breakdown
from ultrasam.evaluation.measures import measure_all
from ultrasam.evaluation.page import extremes, results_page
from ultrasam.evaluation.results import Evaluation
from ultrasam.io.images import write_png

VOID = {"meta", "img", "br"}


class Tags(HTMLParser):
    """Counts elements and holds that they are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.count = [], {}

    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def evaluation(tmp_path):
    rng = np.random.default_rng(0)
    records = [dataclasses.replace(r, image_path=str(tmp_path / r.image_path)) for r in random_records(2)]
    for path in {record.image_path for record in records}:
        write_png(path, rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8))
    measures = measure_all(records)
    return Evaluation(records, measures, breakdown(records, measures, resamples=20, precision_resamples=20))


def provenance(tmp_path):
    return {
        "config": str(tmp_path / "some_config.py"), "prompt": ["point"], "seed": 0, "metrics": {"x": 1},
        "checkpoint": {"path": str(tmp_path / "weights.pth"), "sha256": "abcdef0123456789",
                       "loaded": f"all 7 weights of {tmp_path / 'weights.pth'}"},
    }  # fmt: skip


def test_the_page_is_whole_and_has_the_numbers(evaluation, tmp_path):
    page = results_page(evaluation, provenance(tmp_path), "A & B")
    tags = Tags()
    tags.feed(page)
    assert not tags.open
    assert tags.count["img"] == 12 and tags.count["svg"] == 4
    assert page.count("data:image/jpeg;base64,") == 12 and "http" not in page.replace("http-equiv", "")
    assert "<h1>A &amp; B</h1>" in page
    assert f"{100 * evaluation.breakdown['overall']['dice']['mean']:.1f}" in page
    assert "weights.pth (abcdef012345)" in page and "some_config.py" in page
    assert "all 7 weights of weights.pth" in page
    assert str(tmp_path) not in page, "a page can be given on"


def test_without_pictures_no_image_is_opened(evaluation, tmp_path):
    for record in evaluation.records:
        (tmp_path / record.image_path).unlink(missing_ok=True)
    page = results_page(evaluation, provenance(tmp_path), "A", pictures=False)
    assert "<img" not in page and "Examples" not in page
    with pytest.raises(DataError, match="does not exist"):
        results_page(evaluation, provenance(tmp_path), "A")


def test_extremes_are_told_apart():
    assert extremes(range(20), 2) == [("worst", [0, 1]), ("median", [9, 10]), ("best", [18, 19])]
    few = extremes(range(4), 4)
    assert sorted(number for _, part in few for number in part) == [0, 1, 2, 3]
    assert extremes([], 4) == []
