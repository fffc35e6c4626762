"""Line charts: where points, bands and ticks are drawn, gaps, and values that do not exist."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from ultrasam.visualization.lines import LineChart, Series, draw_line_charts, finite_runs, line_chart

NAN = float("nan")


def series(mean, low=None, high=None, name="model"):
    places = [float(number) for number in range(len(mean))]
    return Series(name, places, mean, low or [v - 0.05 for v in mean], high or [v + 0.05 for v in mean])


def chart(*lines, **changes):
    ticks = [(x, f"t{x:g}") for x in lines[0].x]
    return LineChart("A & B", "x <1>", ticks, lines, **changes)


def drawn(page):
    """The SVG of a card, parsed."""
    return ElementTree.fromstring(re.search(r"<svg.*</svg>", page).group())


def points(text):
    return [tuple(map(float, pair.split(","))) for pair in text.split()]


def test_places_of_what_is_drawn():
    svg = drawn(line_chart(chart(series([0.6, 0.8, 0.7]))))
    circles = [(float(c.get("cx")), float(c.get("cy"))) for c in svg.iter("circle")]
    (line,) = (points(item.get("points")) for item in svg.iter("polyline"))
    (band,) = (points(item.get("points")) for item in svg.iter("polygon"))
    assert line == circles and len(band) == 6
    # Evenly spaced; up is smaller; 0.7 lies in the middle of 0.6 and 0.8.
    assert circles[2][0] - circles[1][0] == pytest.approx(circles[1][0] - circles[0][0], abs=0.2)
    assert circles[2][1] == pytest.approx((circles[0][1] + circles[1][1]) / 2, abs=0.1)
    assert circles[1][1] < circles[2][1] < circles[0][1]
    upper, lower = band[:3], band[:2:-1]
    for (x, y), (a, top), (b, bottom) in zip(circles, upper, lower, strict=True):
        assert x == a == b and top < y < bottom and y - top == pytest.approx(bottom - y, abs=0.2)
    labels = [text.text for text in svg.iter("text")]
    # The lowest end is 0.55, so the axis starts at 0.5.
    assert labels[:5] == ["0.5", "0.625", "0.75", "0.875", "1"] and labels[5:] == ["t0", "t1", "t2", "x <1>"]
    width = float(svg.get("viewBox").split()[2])
    assert all(0 < float(text.get("x")) < width - 15 for text in svg.iter("text"))


def test_gaps_and_missing_intervals():
    line = series([0.5, 0.6, NAN, 0.7, 0.8], [0.4, NAN, NAN, 0.6, 0.7], [0.6, NAN, NAN, 0.8, 0.9])
    svg = drawn(line_chart(chart(line)))
    assert [len(points(item.get("points"))) for item in svg.iter("polyline")] == [2, 2]
    assert [len(points(item.get("points"))) for item in svg.iter("polygon")] == [2, 4]
    assert len(list(svg.iter("circle"))) == 4
    assert "nan" not in ElementTree.tostring(svg, encoding="unicode")
    assert list(finite_runs([(0.0, NAN)])) == []


def test_places_without_an_order_get_bars():
    svg = drawn(line_chart(chart(series([0.2, 0.9]), connected=False)))
    assert not list(svg.iter("polyline")) and not list(svg.iter("polygon"))
    bars = [item for item in svg.iter("line") if item.get("class") != "grid"]
    assert len(bars) == 2 and all(item.get("x1") == item.get("x2") for item in bars)


def test_legend_only_for_several_lines():
    assert "legend" not in line_chart(chart(series([0.5, 0.6])))
    page = line_chart(chart(series([0.5, 0.6], name="a <b>"), series([0.6, 0.7], name="c")))
    assert "a &lt;b&gt;" in page and page.count('class="key"') == 2 and "<h3>A &amp; B</h3>" in page


def test_one_place_and_nothing_at_all():
    for line in (series([0.5]), series([NAN]), series([1.0])):
        svg = drawn(line_chart(chart(line)))
        assert "nan" not in ElementTree.tostring(svg, encoding="unicode")
    assert chart(series([1.0])).floor() == 0.9 and chart(series([0.02])).floor() == 0.0


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="'model' needs as many"):
        Series("model", [0, 1], [0.5], [0.4], [0.6])


def test_figures():
    charts = [chart(series([0.5, NAN, 0.7])), chart(series([0.2, 0.9]), series([0.3, 0.8], name="b"), connected=False)]
    first = draw_line_charts(charts, "title", "note", "Dice")
    assert first == draw_line_charts(charts, "title", "note", "Dice")
    assert first["png"].startswith(b"\x89PNG") and b"<dc:date>" not in first["svg"]
