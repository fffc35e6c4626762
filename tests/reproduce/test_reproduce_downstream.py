"""Tables of the downstream tasks: tests of tiny networks with known scores, result folders by hand, what is open."""

import csv
import json
import logging
from pathlib import Path

import pytest
from mini_collection import make_collection
from mini_downstream import HEADS, add_classes, use_heads, write_head

from ultrasam.reproduce.command import main
from ultrasam.reproduce.tables import TABLES


@pytest.fixture(scope="module")
def downstream(tmp_path_factory):
    """Data with classes, and work directories of three trainings that always find all of the image, benign."""
    folder = tmp_path_factory.mktemp("downstream")
    make_collection(folder / "data")
    add_classes(folder / "data")
    for head in HEADS:
        write_head(head, folder)
    return folder


@pytest.fixture
def run(downstream, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ULTRASAM_DATA", raising=False)
    # MMEngine's loggers of earlier runs write to the captured streams of earlier tests, which are closed.
    monkeypatch.setattr(logging, "raiseExceptions", False)
    use_heads(monkeypatch, downstream)
    return lambda table, *words: main([table, "--data", str(downstream / "data"), "--out", "out", *map(str, words)])


def numbers(table, status="filled"):
    with Path(f"out/{table}.csv").open(newline="") as stream:
        lines = [line for line in csv.DictReader(stream) if line["status"] == status]
    return {(line["row"], line["group"], line["score"]): line for line in lines}


def values(lines, group):
    return [float(line["ours"]) for (_, name, _), line in lines.items() if name == group]


def test_table3_from_a_folder_of_work_directories(run, downstream, capsys):
    """Four of six images are benign, so precision is 4/6 and 0, recall 1 and 0, F1 0.8 and 0, and these are means.

    The one mask meets the object at half of the thresholds (see SHARE); the four benign images stand first.
    """
    assert run("table3", "--weights", downstream / "weights", "--only", "bus_bra", "ultrasam") == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "table3: 7 of 7 cells filled, 0 open; tests run: 2"
    assert "test 2 of 2, bus_bra/ultrasam/classification" in err, "detection and segmentation are one test"
    lines = numbers("table3")
    assert values(lines, "segmentation") == values(lines, "detection") == pytest.approx([25, 50])
    assert values(lines, "classification") == pytest.approx([100 / 3, 50, 40])
    for (_, _, score), line in lines.items():
        assert float(line["low"]) <= float(line["high"]) and score
        assert line["weights"].endswith("-ultrasam-bus_bra") and line["data_set"] == "bus_bra" and line["prompt"] == ""
    tested = [line for line in Path("out/table3.md").read_text().splitlines() if "/test.bus_bra.json |" in line]
    assert [line.split(" | ")[3:] for line in tested] == [["6", "6", " |"], ["6", "", " |"]]
    assert run("table3", "--weights", downstream / "weights", "--only", "bus_bra", "ultrasam") == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("tests run: 0"), "found again"
    # The same two trainings are the end of a curve.
    assert run("figure4", "--weights", downstream / "weights", "--only", "bus_bra", "100", "classification",
               "instance") == 0  # fmt: skip
    assert capsys.readouterr().out.splitlines()[-1] == "figure4: 2 of 2 cells filled, 0 open; tests run: 0"
    curve = numbers("figure4")
    assert float(curve["classification/bus_bra", "100", ""]["ours"]) == pytest.approx(40)
    assert float(curve["instance/bus_bra", "100", ""]["ours"]) == pytest.approx(25)
    assert Path("out/figure4.png").is_file()


def test_table4_with_points_and_boxes(run, downstream, capsys):
    assert run("table4", "--weights", downstream / "weights", "--only", "bus_bra", "ultrasam") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "table4: 6 of 6 cells filled, 0 open; tests run: 2"
    lines = numbers("table4")
    for prompt, paper in (("point", 88.7), ("box", 88.9)):
        line = lines[f"{prompt}/ultrasam", "bus_bra", "F1"]
        assert float(line["ours"]) == pytest.approx(40) and float(line["paper"]) == paper and line["prompt"] == prompt
        record = json.loads((Path("out") / line["result_folder"] / "metrics.json").read_text())
        assert record["prompt"] == [prompt]


def result(folder, source, **metrics):
    """Write a result folder by hand."""
    Path(folder).mkdir()
    record = {
        "metrics": metrics, "annotations": [{"file": source.annotations, "sha256": "00", "filters": "none"}],
        "prompt": [source.prompt] if source.prompt else [],
    }  # fmt: skip
    (Path(folder) / "metrics.json").write_text(json.dumps(record))
    return folder


def source_of(table, row, group):
    (found,) = [each for each in TABLES[table]().rows if each.id == row]
    return found.sources[group]


@pytest.mark.parametrize(
    ("table", "row", "group", "logged", "expected"),
    [
        ("table2", "box/lora", "mmotu_2d", {"coco/segm_mAP": 0.5, "coco/segm_mAP_50": 0.75}, [50, 75]),
        ("table2", "point/samus", "gist514_db", {"coco/segm_mAP": 0.25, "coco/segm_mAP_50": 0.5}, [25, 50]),
        ("table3", "mmotu_2d/usfm", "detection", {"coco/bbox_mAP": 0.25, "coco/bbox_mAP_50": 0.5}, [25, 50]),
        ("table3", "mmotu_2d/usfm", "segmentation", {"coco/segm_mAP": 0.125, "coco/segm_mAP_50": 0.5}, [12.5, 50]),
        ("table4", "box/medsam", "bus_bra",
         {f"classification/{name}": value for name, value in (("precision", 0.5), ("recall", 0.25), ("f1", 0.125))},
         [50, 25, 12.5]),
        ("table5", "us-43d+sa-1b", "classification",
         {f"classification/{name}": value for name, value in (("precision", 0.5), ("recall", 0.25), ("f1", 0.125))},
         [50, 25, 12.5]),
        ("figure4", "classification/mmotu_2d", "30", {"classification/f1": 0.75}, [75]),
        ("figure4", "instance/mmotu_2d", "0", {"coco/segm_mAP": 0.5}, [50]),
    ],
)  # fmt: skip
def test_result_folders_fill_a_part_of_every_table(run, capsys, table, row, group, logged, expected):
    ends = {f"{name}_low": value - 0.0625 for name, value in logged.items()}
    ends |= {f"{name}_high": value + 0.0625 for name, value in logged.items()}
    folder = result("given", source_of(table, row, group), **logged, **ends)
    assert run(table, "--results", f"{row}/{group}={folder}") == 0
    lines = numbers(table)
    assert [float(line["ours"]) for line in lines.values()] == expected
    assert {key[:2] for key in lines} == {(row, group)}
    for line in lines.values():
        assert float(line["high"]) - float(line["low"]) == 12.5
        assert not line["paper"] or float(line["difference"]) == float(line["ours"]) - float(line["paper"])
    assert f"{len(expected)} of " in capsys.readouterr().out


def test_results_of_another_task_are_refused(run, capsys):
    source = source_of("table3", "bus_bra/sam", "classification")
    classified = result("classified", source, **{"classification/f1": 1.0})
    assert run("table3", "--results", f"bus_bra/sam/detection={classified}") == 2
    assert "has no score bbox_mAP" in capsys.readouterr().err
    prompted = result("prompted", source_of("table4", "box/sam", "bus_bra"), **{"classification/f1": 1.0})
    assert run("table3", "--results", f"bus_bra/sam/classification={prompted}") == 2
    out, err = capsys.readouterr()
    assert "test.bus_bra.json with no prompts was expected" in err and "filled" not in out
    agnostic = result("agnostic", source_of("table2", "box/sam", "bus_bra"), **{"coco/segm_mAP": 1.0})
    assert run("table3", "--results", f"bus_bra/sam/segmentation={agnostic}") == 2
    assert "holds a test of test.bus_bra.agnostic.json with ['box'] prompts" in capsys.readouterr().err


def test_a_training_that_does_not_load_fails_once(run, tmp_path, capsys):
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"no weights")
    assert run("table3", "--weights", f"mask2former-sam-bus_bra={broken}", "--only", "bus_bra", "sam") == 2
    out, err = capsys.readouterr()
    assert "table3: 0 of 7 cells filled, 3 open, 4 failed" in out
    assert err.count(str(broken)) == 1 and "error: cells failed: 4" in err


@pytest.mark.parametrize(
    ("table", "cells", "trainings"), [("table3", 147, 42), ("table4", 45, 9), ("table5", 21, 6), ("figure4", 60, 43)]
)
def test_what_is_open_is_listed_with_its_commands(run, downstream, capsys, table, cells, trainings):
    assert run(table) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{table}: 0 of {cells} cells filled, {cells} open; tests run: 0"
    waiting = {line.split(" the weights ")[1].split(" are")[0] for line in lines if " the weights " in line}
    named = {source.weights for row in TABLES[table]().rows for source in row.sources.values()}
    assert waiting == named and len(waiting) == trainings
    for place, line in enumerate(lines):
        if " the weights " in line and "mask2former-sam-" in line:
            assert lines[place + 1].strip().startswith(f"ULTRASAM_DATA={downstream / 'data'} python tools/train.py")
    again = f"    python tools/reproduce.py {table} --data {downstream / 'data'} --out out --weights work_dirs"
    assert again in lines
    assert all(line["status"] == "open" for line in numbers(table, "open").values())
    assert f"    python -m data_prep convert gist514_db --source DOWNLOAD --out {downstream / 'data'}" in lines
