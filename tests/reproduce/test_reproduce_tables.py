"""The tables hold the paper's numbers, and what they test with exists and fits; words choose parts of them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ultrasam.engine.config import load_config
from ultrasam.engine.test import parse_arguments, prepare_config
from ultrasam.errors import ConfigError
from ultrasam.reproduce.layout import OURS, PUBLISHED, Column, Row, Source, Table, select
from ultrasam.reproduce.paper import DATASETS, paper_tables
from ultrasam.reproduce.tables import TABLES
from ultrasam.reproduce.weights import WEIGHTS

SOURCES = sorted(
    {source for make in TABLES.values() for row in make().rows for source in row.sources.values()}, key=repr
)
BOTH = (OURS, PUBLISHED)


def numbers(table, row):
    (found,) = [each for each in TABLES[table]().rows if each.id == row]
    return found.paper


@pytest.mark.parametrize(
    ("table", "row", "paper"),
    [
        ("table2", "point/lora", (58.5, 95.0, 44.4, 76.1, 36.9, 70.3)),
        ("table2", "box/ultrasam", (79.1, 99.0, 79.5, 100, 73.0, 100)),
        ("table2", "box/ultrasam/published", (79.1, 99.0, 79.5, 100, 73.0, 100)),
        ("table2", "point/sam", (14.2, 27.2, 2.1, 4.7, 6.2, 12.2)),
        ("table2", "box/medsam", (59.1, 98.9, 48.8, 95.4, 30.4, 81.0)),
        ("table2", "box/medsam-common", (59.1, 98.9, 48.8, 95.4, 30.4, 81.0)),
        ("table2", "point/ultrasam-star", (58.3, 92.7, 44.4, 70.6, 9.3, 17.4)),
        ("table2", "box/ultrasam-no-refine", (None,) * 6),
        ("table3", "bus_bra/usfm", (57.7, 85.5, 56.8, 86.6, 90.2, 85.3, 87.2)),
        ("table3", "gist514_db/sam", (43.5, 66.2, 44.0, 61.5, 86.7, 85.1, 84.8)),
        ("table4", "box/medsam", (80.1, 81.2, 80.4, 49.3, 50.3, 49.5, 78.5, 78.2, 78.9)),
        ("table5", "us-43d+sa-1b", (41.0, 60.5, 41.4, 61.4, 83.4, 83.1, 83.0)),
        ("figure4", "point/gist514_db", (9.3, None, None, None, 55.5)),
        ("figure4", "classification/mmotu_2d", (None, None, None, None, 62.0)),
    ],
)
def test_numbers_are_those_of_the_paper(table, row, paper):
    assert numbers(table, row) == paper


def test_every_line_of_the_paper_has_a_row():
    counts = {name: len([row for row in make().rows if row.protocol == OURS]) for name, make in TABLES.items()}
    paper = paper_tables()
    # Ours besides: MedSAM under the common preprocessing (box), UltraSam without refinement (both prompts).
    assert counts["table2"] == len(paper["table2_interactive_segmentation"]) + 3
    assert counts["table3"] == len(paper["table3_downstream"]) == 21
    assert counts["table4"] == len(paper["table4_prompted_classification"])
    assert counts["table5"] == len(paper["table5_hybrid_pretraining_on_GIST514DB"]) == 3
    assert counts["figure4"] == 4 * len(DATASETS)


@pytest.mark.shared
def test_the_numbers_are_a_copy(shared):
    assert paper_tables() == json.loads((shared / "reference/paper_tables.json").read_text(encoding="utf-8"))


def test_medsam_points_and_samus_boxes_are_unsupported():
    rows = {row.id: row for row in TABLES["table2"]().rows}
    assert [row.id for row in rows.values() if row.unsupported] == ["box/samus", "point/medsam"]


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: f"{Path(s.config).stem}-{s.dataset}-{s.prompt}-{s.weights}")
def test_every_test_fits_its_configuration(source, monkeypatch):
    monkeypatch.setenv("ULTRASAM_DATA", "root")
    options = ["--cfg-options", *source.options] if source.options else []
    arguments = [source.config, "x.pth", "--datasets", source.dataset, "--prompt", source.prompt, *options]
    cfg = prepare_config(parse_arguments(arguments))
    leaf = cfg.test_dataloader.dataset
    wanted = f"{source.dataset}/annotations/test.{source.dataset}.agnostic.json"
    assert (leaf.data_root, leaf.ann_file, leaf.prompt) == ("root", wanted, source.prompt)
    assert source.weights in WEIGHTS
    if source.prompt == "centroid":
        assert cfg.model.mask_order == "released"


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_say_how_they_are_made(name):
    weights = WEIGHTS[name]
    assert weights.what
    if weights.command:
        script, config, *_ = weights.command.split()
        assert Path(__file__).resolve().parents[2].joinpath(script).is_file()
        changed = [word for word in weights.command.split() if "=" in word]
        cfg = load_config(config, changed)
        family = name.split("-")[1] if name.count("-") == 2 and "without" not in name else ""
        if family in ("breast", "ovarian", "gastrointestinal"):
            assert cfg.train_dataloader.dataset.ann_file == f"train.{family}_{name.split('-')[2]}.json"
        if "without" in name:
            assert cfg.train_dataloader.dataset.ann_file == f"train.without_{name.split('-')[2]}.json"
    else:
        assert "https://" in weights.what


def chosen(*only, protocols=BOTH, table="table2"):
    return [f"{row.id}/{group}" for row, group in select(TABLES[table](), only, protocols)]


def test_words_choose():
    assert chosen("box", "sam", "bus_bra") == ["box/sam/bus_bra", "box/sam/published/bus_bra"]
    assert chosen("box", "sam", "bus_bra", protocols=[OURS]) == ["box/sam/bus_bra"]
    assert chosen("published", "box", "sam", "bus_bra", "mmotu_2d") == [
        "box/sam/published/bus_bra", "box/sam/published/mmotu_2d",
    ]  # fmt: skip
    assert len(chosen()) == 3 * len(TABLES["table2"]().rows)
    assert chosen("bus_bra", "usfm", "classification", table="table3") == ["bus_bra/usfm/classification"]
    with pytest.raises(ConfigError, match="--only sm is not in table2; it has box, bus_bra, "):
        chosen("sm")


def test_a_table_that_does_not_fit_together_is_refused():
    source = Source("c.py", "sam", "bus_bra", "box")
    row = Row("box/sam", ("box", "SAM"), (1.0,), {"bus_bra": source})
    columns = (Column("bus_bra", "mAP", "segm_mAP"),)
    Table("t", "T", ("prompt", "method"), columns, (row,), {"bus_bra": "BUS-BRA"})
    for wrong in (
        replace(row, paper=()), replace(row, labels=("box",)), replace(row, pending="soon"), replace(row, sources={}),
        replace(row, sources={"elsewhere": source}),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="does not fit together"):
            Table("t", "T", ("prompt", "method"), columns, (wrong,), {"bus_bra": "BUS-BRA"})
    with pytest.raises(ConfigError, match="does not fit together"):
        Table("t", "T", ("prompt", "method"), columns, (row, row), {"bus_bra": "BUS-BRA"})
