"""The tables hold the paper's numbers, and what they test with exists and fits; words choose parts of them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ultrasam.engine.checks import leaf_datasets
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


@pytest.mark.parametrize("task", ["interactive", "segmentation", "classification", "prompted_classification"])
def test_every_test_fits_its_configuration(task, monkeypatch):
    monkeypatch.setenv("ULTRASAM_DATA", "root")
    # Trainings on other images are tested with the same configuration; data sets of a configuration are tested at once.
    mine = {}
    for source in SOURCES:
        if task_of(source.config) == task:
            mine.setdefault((source.config, source.prompt, source.options), {})[source.dataset] = source
    assert len(mine) >= 9
    wanted = scores_by_test()
    for (config, prompt, options), sources in mine.items():
        words = [config, "x.pth", "--datasets", *sources, *(["--prompt", prompt] if prompt else [])]
        cfg = prepare_config(parse_arguments([*words, *(["--cfg-options", *options] if options else [])]))
        leaves = list(leaf_datasets(cfg.test_dataloader.dataset))
        assert [(leaf.data_root, leaf.ann_file, leaf.get("prompt", "")) for leaf in leaves] == [
            ("root", source.annotations, prompt) for source in sources.values()
        ]
        for leaf, source in zip(leaves, sources.values(), strict=True):
            agnostic = leaf.type == "PromptedCocoDataset"
            assert agnostic != source.classes and agnostic == leaf.ann_file.endswith(".agnostic.json")
            assert wanted[replace(source, weights="")] <= LOGGED[cfg.test_evaluator.type]
        if prompt == "centroid":
            assert cfg.model.mask_order == "released"


# Scores of which the metrics log these and more.
LOGGED = {
    "PromptedMaskMetric": {"segm_mAP", "segm_mAP_50"},
    "InstanceMetric": {"segm_mAP", "segm_mAP_50", "bbox_mAP", "bbox_mAP_50"},
    "ClassificationMetric": {"precision", "recall", "f1"},
}


def scores_by_test():
    found = {}
    for make in TABLES.values():
        table = make()
        for row in table.rows:
            for column in table.columns if row.sources else ():
                source = replace(row.sources[column.group], weights="")
                found.setdefault(source, set()).add(row.metric or column.metric)
    return found


def task_of(config):
    folder = Path(config).parent
    return folder.name if folder.parent.name == "downstream" else "interactive"


def test_rows_name_their_weights():
    def weights(table, row):
        (found,) = [each for each in TABLES[table]().rows if each.id == row]
        return [source.weights for source in found.sources.values()]

    assert weights("table2", "point/samus") == ["samus"] * 3
    assert weights("table2", "box/ultrasam-star/published") == [
        f"ultrasam-without-{family}" for family in ("breast", "ovarian", "gastrointestinal")
    ]
    assert weights("table3", "bus_bra/resnet50") == [
        "mask2former-resnet50-bus_bra", "mask2former-resnet50-bus_bra", "classifier-resnet50-bus_bra",
    ]  # fmt: skip
    assert weights("table4", "box/medsam") == [f"prompted-medsam-{slug}" for slug in DATASETS]
    assert weights("table5", "us-43d+sa-1b")[1:] == [
        "mask2former-ultrasam-sa1b-gist514_db", "classifier-ultrasam-sa1b-gist514_db",
    ]  # fmt: skip
    # One training serves Table 3, Table 5 and the end of a curve.
    assert weights("table5", "us-43d") == weights("table3", "gist514_db/ultrasam")
    assert weights("figure4", "instance/gist514_db") == [
        f"mask2former-{start}-gist514_db"
        for start in ("ultrasam-without-gastrointestinal", "ultrasam-gastrointestinal-10",
                      "ultrasam-gastrointestinal-30", "ultrasam-gastrointestinal-50", "ultrasam")
    ]  # fmt: skip
    assert {source.weights for source in SOURCES} <= set(WEIGHTS)


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
        replace(row, paper=()), replace(row, labels=("box",)), replace(row, unsupported="no boxes"),
        replace(row, sources={}), replace(row, sources={"elsewhere": source}),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="does not fit together"):
            Table("t", "T", ("prompt", "method"), columns, (wrong,), {"bus_bra": "BUS-BRA"})
    with pytest.raises(ConfigError, match="does not fit together"):
        Table("t", "T", ("prompt", "method"), columns, (row, row), {"bus_bra": "BUS-BRA"})
