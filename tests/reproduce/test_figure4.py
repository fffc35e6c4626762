"""Figure 4: numbers from a file and from results, the curves that are drawn, mistakes in the file."""

import csv
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from ultrasam.errors import DataError
from ultrasam.reproduce.command import main
from ultrasam.reproduce.figure4 import Point, read_points

LINES = """task,data_set,share,score,low,high
point,bus_bra,0,50,45,55
point,bus_bra,30 %,60,55,65
point,bus_bra,100,70,,
classification,gist514_db,100,80,,
"""


@pytest.fixture
def numbers(tmp_path):
    path = tmp_path / "numbers.csv"
    path.write_text(LINES)
    return path


def run(mini, *arguments):
    return main(["figure4", "--data", str(mini / "data"), "--out", "out", *map(str, arguments)])


def test_numbers_of_a_file_are_drawn(mini, numbers, monkeypatch, capsys):
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k))[1])
    assert run(mini, "--csv", numbers) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "figure4: 4 of 60 cells filled, 56 open; tests run: 0"
    first, second = drawn[0].axes
    assert (first.get_title(), second.get_title()) == ("interactive segmentation, point", "classification")
    assert (first.get_ylabel(), second.get_ylabel()) == ("mAP, %", "F1, %")
    assert list(first.get_xticks()) == [0, 10, 30, 50, 100]
    ours, paper, _ = first.get_lines()
    np.testing.assert_array_equal(ours.get_xydata(), [[0, 50], [30, 60], [100, 70]])
    np.testing.assert_array_equal(paper.get_xydata(), [[0, 58.3], [100, 67.1]])
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["BUS-BRA", "paper"]
    with Path("out/figure4.csv").open(newline="") as stream:
        lines = {(line["row"], line["group"]): line for line in csv.DictReader(stream)}
    assert lines["point/bus_bra", "0"]["difference"] == repr(50 - 58.3)
    assert lines["point/bus_bra", "30"]["low"] == "55.0" and lines["point/bus_bra", "100"]["low"] == ""
    before = [Path(f"out/figure4.{suffix}").read_bytes() for suffix in ("png", "svg")]
    assert run(mini, "--csv", numbers) == 0
    assert [Path(f"out/figure4.{suffix}").read_bytes() for suffix in ("png", "svg")] == before


def test_shares_are_tested_with_their_weights(mini, monkeypatch, capsys):
    asked = []

    def fake(arguments):
        asked.append((arguments.checkpoint, arguments.prompt))
        arguments.out.mkdir(parents=True)
        (arguments.out / "metrics.json").write_text('{"metrics": {"coco/segm_mAP": 0.4}}')

    monkeypatch.setattr("ultrasam.engine.test.test", fake)
    weights = [f"ultrasam-breast-10={mini / 'all.pth'}", f"ultrasam-without-breast={mini / 'nothing.pth'}"]
    assert run(mini, "--only", "point", "bus_bra", "--weights", *weights) == 0
    assert asked == [(str(mini / "nothing.pth"), "point"), (str(mini / "all.pth"), "point")]
    out = capsys.readouterr().out
    assert "2 of 5 cells filled" in out and "train.breast_30.json" in out and Path("out/figure4.svg").is_file()


def test_result_folders_are_points(mini, ran, capsys):
    (folder,) = (ran[0] / "runs").glob("*.sam.*")
    assert run(mini, "--results", f"box/bus_bra/50={folder}") == 0
    assert "interactive segmentation, box, BUS-BRA, mAP, 50 %" in capsys.readouterr().out


def test_nothing_to_draw_is_said(mini, capsys):
    assert run(mini) == 0
    assert "figure4: 0 of 60 cells filled" in capsys.readouterr().out and not Path("out/figure4.png").exists()


def test_reading(numbers):
    found = read_points(numbers)
    assert found["point/bus_bra", "0"] == Point(50, 45, 55) and found["point/bus_bra", "30"] == Point(60, 55, 65)
    assert found["classification/gist514_db", "100"] == Point(80, None, None)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("share,score", "share,value", "score is missing"),
        ("point,bus_bra,0", "points,bus_bra,0", "line 2: a task of point, box, .* found 'points'"),
        ("bus_bra,0,", "bus,0,", "found 'point', 'bus', '0'"),
        (",30 %,", ",20,", "line 3: .* found 'point', 'bus_bra', '20'"),
        (",50,45", ",0.5x,45", "line 2: numbers from 0 to 100"),
        (",50,45", ",,45", "numbers from 0 to 100"),
        (",50,45", ",500,45", "numbers from 0 to 100"),
        ("bus_bra,100,70", "bus_bra,0,70", "line 4: point/bus_bra/0 is there twice"),
    ],
)
def test_mistakes_in_the_file(tmp_path, old, new, message):
    path = tmp_path / "wrong.csv"
    assert LINES.count(old)
    path.write_text(LINES.replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        read_points(path)


def test_numbers_that_are_not_chosen_are_refused(mini, numbers, tmp_path, capsys):
    assert run(mini, "--csv", numbers, "--only", "box") == 2
    assert "the CSV has point/bus_bra/0, which --only leaves out" in capsys.readouterr().err
    assert run(mini, "--csv", tmp_path / "absent.csv") == 2
    assert "absent.csv cannot be read" in capsys.readouterr().err
