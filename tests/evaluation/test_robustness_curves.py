"""Curves, tables, page and figure from objects whose Dice is set by hand."""

import csv
import io
import math

import numpy as np
import pytest

from ultrasam.evaluation.intervals import compare_means, mean_interval
from ultrasam.evaluation.robustness import Cost, ObjectCurves, Plan
from ultrasam.evaluation.robustness_curves import curves_csv, curves_of, curves_record, objects_csv
from ultrasam.evaluation.robustness_page import charts_of, figure_files, robustness_page

PLAN = Plan(jitter=(0, 0.1), positions=("deepest", "border"), clicks=3, seed=4)


def object_of(number, share, box, click):
    """Dice falls by 0.1 with jitter and 0.2 at the border, and rises by 0.05 a click."""
    return ObjectCurves(
        "set", f"p{number // 2}", str(number), "1", round(1e4 * share), share,
        (box, box - 0.1), (click, click - 0.2), (click, click + 0.05, click + 0.1),
    )  # fmt: skip


@pytest.fixture(scope="module")
def objects():
    rng = np.random.default_rng(0)
    return [object_of(n, s, *rng.uniform(0.5, 0.9, 2)) for n, s in enumerate([0.004, 0.005, 0.03, 0.04, 0.3, 0.9])]


@pytest.fixture(scope="module")
def curves(objects):
    return curves_of(objects, PLAN)


def test_curves_are_means_over_objects(objects, curves):
    assert [(c.kind, c.prompt) for c in curves] == [
        ("jitter", "box"), ("position", "point"), ("clicks", "point"), ("size", "box"), ("size", "point"),
    ]  # fmt: skip
    groups = [f"set/{item.group}" for item in objects]
    clicks = np.array([item.clicks for item in objects])
    found = curves[2].points
    assert [(p.condition, p.x) for p in found] == [("1", 1), ("2", 2), ("3", 3)]
    for column, point in enumerate(found):
        assert point.dice == mean_interval(clicks[:, column], groups, seed=4)
        assert point.dice.mean == pytest.approx(clicks[:, column].mean()) and point.dice.groups == 3
    assert found[0].difference is None
    assert found[2].difference == compare_means(clicks[:, 0], clicks[:, 2], groups, seed=4)
    assert found[2].difference.difference == pytest.approx(0.1)
    assert found[2].difference.low == pytest.approx(found[2].difference.high), "the same for every object"
    assert curves[0].points[1].difference.difference == pytest.approx(-0.1)
    assert [p.condition for p in curves[1].points] == ["deepest", "border"]


def test_sizes(objects, curves):
    points = curves[3].points
    # 0.005 is the lower edge of the second bin; bins without an object are left out.
    assert [p.condition for p in points] == ["0 to 0.5 %", "0.5 to 1 %", "2 to 5 %", "20 to 100 %"]
    assert [p.dice.objects for p in points] == [1, 1, 2, 2]
    assert points[2].dice.mean == pytest.approx((objects[2].jitter[0] + objects[3].jitter[0]) / 2)
    assert math.isnan(points[0].dice.low), "one patient has no interval"
    assert curves[4].points[3].dice.mean == pytest.approx((objects[4].clicks[0] + objects[5].clicks[0]) / 2)


def test_without_clicks():
    plan = Plan(jitter=(0.1,), clicks=0)
    objects = [ObjectCurves("set", str(n), str(n), "1", 10, 0.1, (0.9, 0.8), (), ()) for n in range(3)]
    curves = curves_of(objects, plan)
    assert [(c.kind, c.prompt) for c in curves] == [("jitter", "box"), ("size", "box")]
    page = robustness_page(curves, Cost(images=3, objects=3, decodes=6).record(), {}, "boxes")
    assert page.count("<svg") == 2 and "Dice, exact box" in page and "clicks</" not in page


def test_tables(objects, curves):
    rows = list(csv.DictReader(io.StringIO(curves_csv(curves).decode())))
    assert len(rows) == 2 + 2 + 3 + 4 + 4
    assert float(rows[1]["dice"]) == curves[0].points[1].dice.mean
    assert float(rows[1]["difference_low"]) == curves[0].points[1].difference.low
    assert rows[0]["difference"] == "" and rows[7]["low"] == ""
    rows = list(csv.DictReader(io.StringIO(objects_csv(objects, PLAN).decode())))
    assert [float(row["clicks_3"]) for row in rows] == [item.clicks[2] for item in objects]
    assert [float(row["jitter_0.1"]) for row in rows] == [item.jitter[1] for item in objects]
    assert [float(row["position_border"]) for row in rows] == [item.positions[1] for item in objects]
    assert [float(row["share"]) for row in rows] == [item.share for item in objects]
    point = curves_record(curves)[0]["points"][1]
    assert point["dice"]["mean"] == curves[0].points[1].dice.mean and point["condition"] == "0.1"


def test_page(curves):
    charts = charts_of(curves)
    assert [len(chart.series) for chart in charts] == [1, 1, 1, 2]
    assert charts[3].ticks == [(0, "0–0.5"), (1, "0.5–1"), (2, "2–5"), (3, "20–100")]
    assert [chart.connected for chart in charts] == [True, False, True, True]
    cost = Cost(images=6, objects=6, decodes=42, encode_seconds=3, decode_seconds=4.2)
    origin = {"checkpoint": {"path": "some/<net>.pth", "sha256": "ab" * 32}, "curves": ["left out"]}
    page = robustness_page(curves, cost.record(), origin, "net: robustness")
    assert page.count("<svg") == 4 and "&lt;net&gt;.pth (abababababab)" in page and "left out" not in page
    assert "7.0 masks an object took 0.700 s (0.100 s a mask" in page and "once an image, 0.500 s" in page
    mean = curves[2].points[2].dice.mean
    assert f"<b>{100 * mean:.1f}</b>Dice, 3 clicks" in page and "+10.0" in page


def test_figure(curves):
    files = figure_files(curves, "net")
    assert files.keys() == {"png", "svg"}
    assert files["png"].startswith(b"\x89PNG") and b"</svg>" in files["svg"]
