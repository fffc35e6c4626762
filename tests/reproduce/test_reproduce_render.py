"""A small table in every format, by hand; scores read from results."""

import csv
import io
from pathlib import Path

import pytest

from ultrasam.errors import DataError
from ultrasam.reproduce.fill import FAILED, FILLED, OPEN, UNSUPPORTED, Cell, Filled, Need, score
from ultrasam.reproduce.layout import Column, Row, Source, Table
from ultrasam.reproduce.render import comma_separated, counts, latex, markdown, number, terminal, write_table

SOURCE = {"bus_bra": Source("configs/a.py", "sam", "bus_bra", "box")}
ROWS = (
    Row("box/sam", ("box", "SAM_50 & co"), (68.1, 100), SOURCE),
    Row("box/lora", ("box", "LoRA|A"), (72.9, None), SOURCE),
    Row("box/samus", ("box", "SAMUS"), (None, None), unsupported="no boxes"),
)
TABLE = Table(
    "t", "T (%)", ("prompt", "method"), (Column("bus_bra", "mAP", "segm_mAP"), Column("bus_bra", "mAP50", "x")), ROWS,
    {"bus_bra": "BUS-BRA"},
)  # fmt: skip
NEED = Need("weights are absent", ("get them",))
FOLDER = Path("out/runs/one")
RECORD = {
    "metrics": {},
    "checkpoint": {"sha256": "ab" * 32},
    "annotations": [{"file": "test.a.json", "sha256": "cd" * 32, "filters": {"indices": 3}}],
    "breakdown": {"overall": {"counts": {"objects": 7, "images": 5, "groups": 4}}},
}
CELLS = (
    Cell(ROWS[0], 0, FILLED, 68.04, 66.049, 70.0, folder=FOLDER),
    Cell(ROWS[0], 1, FAILED, problem="it broke"),
    Cell(ROWS[1], 0, OPEN, needs=(Need("soon"),)),
    Cell(ROWS[1], 1, OPEN, needs=(NEED, Need("soon"))),
    Cell(ROWS[2], 0, UNSUPPORTED),
    Cell(ROWS[2], 1, UNSUPPORTED),
)
FILLED_TABLE = Filled(TABLE, CELLS, {FOLDER: RECORD}, "call again")


def test_markdown():
    lines = markdown(FILLED_TABLE).splitlines()
    assert lines[4:9] == [
        "| prompt | method | BUS-BRA mAP | BUS-BRA mAP50 |",
        "| --- | --- | ---: | ---: |",
        "| box | SAM_50 & co | **68.0** (-0.1)<br>66.0 to 70.0<br>paper 68.1 | failed<br>paper 100.0 |",
        "| box | LoRA\\|A | open<br>paper 72.9 | open |",
        "| box | SAMUS | not supported | not supported |",
    ]
    text = "\n".join(lines)
    assert "1 of 4 cells filled, 2 open, 1 failed, 2 more cannot be filled by any model." in text
    assert "| test.a.json | cdcdcdcdcdcd | {'indices': 3} | 7 | 5 | 4 |" in text, "filters on the truth are shown"
    assert "* box/sam/bus_bra: it broke" in text
    assert "* 1 cell (box/lora): weights are absent\n  `get them`" in text
    assert text.index("* 2 cells (box/lora): soon") < text.index("weights are absent")
    assert text.rstrip().endswith("as NAME=FILE: `call again`")


def test_csv_has_full_precision():
    lines = list(csv.DictReader(io.StringIO(comma_separated(FILLED_TABLE, Path("out")))))
    first = lines[0]
    assert float(first["ours"]) == 68.04 and float(first["difference"]) == 68.04 - 68.1
    assert (first["low"], first["high"], first["result_folder"]) == ("66.049", "70.0", "runs/one")
    assert (first["config"], first["weights"], first["data_set"], first["prompt"]) == (
        "configs/a.py", "sam", "bus_bra", "box",
    )  # fmt: skip
    assert first["checkpoint_sha256"] == "ab" * 32
    assert [line["status"] for line in lines] == [cell.status for cell in CELLS]
    assert [line["note"] for line in lines[1:]] == [
        "it broke", "soon", "weights are absent; soon", "no boxes", "no boxes",
    ]  # fmt: skip


def test_latex():
    text = latex(FILLED_TABLE)
    assert r"SAM\_50 \& co & 68.0 {\scriptsize [66.0, 70.0]} (68.1) & (100.0) \\" in text
    assert r" &  & \multicolumn{2}{c}{BUS-BRA} \\" in text
    assert r"box & SAMUS & -- & -- \\" in text
    body = [line for line in text.splitlines() if line.endswith(r" \\") and "multicolumn" not in line]
    assert {line.replace(r"\&", "").count("&") for line in body} == {3}


def test_terminal():
    lines = terminal(FILLED_TABLE).splitlines()
    assert lines[2].split()[-6:] == ["68.1", "68.0", "-0.1", "66.0", "to", "70.0"]
    assert "failed: box/sam/bus_bra: it broke" in lines and "open, 2 cells (box/lora): soon" in lines
    assert lines[-4:] == [
        "open, 1 cell (box/lora): weights are absent", "    get them",
        "Then, with public files in the same folder or as NAME=FILE:", "    call again",
    ]  # fmt: skip
    assert counts(FILLED_TABLE).startswith("t: 1 of 4 cells filled")


def test_numbers():
    assert [number(value, signed=True) for value in (0.04, -0.04, -0.06, None)] == ["+0.0", "+0.0", "-0.1", ""]
    assert number(100) == "100.0"


def test_files_are_written(tmp_path):
    paths = write_table(FILLED_TABLE, tmp_path / "new")
    assert [path.name for path in paths] == ["t.md", "t.csv", "t.tex"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["t.csv", "t.md", "t.tex"]


def test_scores_with_and_without_intervals():
    record = {
        "metrics": {
            "coco/segm_mAP": 0.5, "nan": None, "coco/bbox_mAP": 0.25, "coco/bbox_mAP_low": 0.125,
            "coco/bbox_mAP_high": 0.375, "classification/f1": 0.7, "classification/f1_low": 0.6,
            "classification/f1_high": None,
        },
        "breakdown": {"overall": {"dice": {"mean": 0.9, "low": 0.8, "high": None}}},
    }
    assert score(record, "dice", FOLDER) == (90, 80, None)
    assert score(record, "segm_mAP", FOLDER) == (50, None, None)
    assert score(record, "bbox_mAP", FOLDER) == (25, 12.5, 37.5)
    assert score(record, "f1", FOLDER) == (70, 60, None)
    for absent in ("nan", "hd95"):
        with pytest.raises(DataError, match=f"metrics.json has no score {absent}; test again"):
            score(record, absent, FOLDER)
