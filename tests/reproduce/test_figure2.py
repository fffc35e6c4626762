"""Figure 2: counts by hand, the paper's rows, what is drawn where, the same bytes again, what is refused."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from data_prep.catalogue import catalogue
from data_prep.report.paper import APPLICATIONS
from ultrasam.errors import DataError
from ultrasam.io.images import read_image
from ultrasam.reproduce.canvas import COLOURS
from ultrasam.reproduce.collection import TABLE1, Count, read_collection
from ultrasam.reproduce.command import main
from ultrasam.reproduce.paper import paper_tables

PAPER = {row["dataset"]: row for row in paper_tables()["table1_us43d"]}
# Data set, application, masks of each image, by side.
IMAGES = {
    "train": [("bus_bra", "breast lesions", 1), ("bus_bra", "breast lesions", 2), ("mup", "prostate", 1),
              ("microseg", "prostate", 3), ("clinic", "", 0), ("stu_hospital", "breast lesions", 1)],
    "val": [("clinic", "", 4)],
    "test": [("bus_bra", "breast lesions", 1), ("lab", "liver", 2)],
}  # fmt: skip


def write(root, images=IMAGES):
    root.mkdir(exist_ok=True)
    for split, entries in images.items():
        content = {"categories": [{"id": 1, "name": "object"}], "images": [], "annotations": []}
        for number, (slug, application, masks) in enumerate(entries, 7):
            content["images"].append({"id": number, "dataset": slug, "application": application})
            content["annotations"] += [{"image_id": number} for _ in range(masks)]
        (root / f"{split}.agnostic.json").write_text(json.dumps(content))
    return root


def counted(entries):
    return {item.name: item.ours for item in entries if item.ours.images}


def test_the_names_of_table_1():
    """Each of our sets has the row with the images and masks that the catalogue knows of it."""
    infos = {slug: converter.info for slug, converter in catalogue().items()}
    assert set(TABLE1) == set(infos) and set(TABLE1.values()) == set(PAPER)
    for slug, name in TABLE1.items():
        row = PAPER[name]
        assert (row["images"], row["masks"]) == infos[slug].table1
        assert row["application"] == APPLICATIONS[slug]


def test_counts(tmp_path):
    found = read_collection(write(tmp_path / "data"))
    assert counted(found.sets) == {
        "BUS-BRA": Count(3, 4), "MUP & MicroSeg": Count(2, 4), "clinic": Count(2, 4), "lab": Count(1, 2),
        "STU-Hospital": Count(1, 1),
    }  # fmt: skip
    # Sets of the paper stand under its applications, STU-Hospital too.
    assert counted(found.applications) == {
        "breast lesions": Count(3, 4), "prostate": Count(2, 4), "not named": Count(2, 4), "liver": Count(1, 2),
        "other": Count(1, 1),
    }  # fmt: skip
    assert found.total.ours == Count(9, 15) and found.there() == 5 and found.excluded == 0
    assert len(found.sets) == 42 + 2 and len(found.applications) == 20 + 1
    paper = {item.name: item.paper for item in found.sets}
    assert paper["BUS-BRA"] == Count(1875, 1875) and paper["clinic"] == Count()
    assert found.total.paper == Count(186_894, 279_765)
    assert {item.name: item.paper.masks for item in found.applications}["cardiac"] == 101_318
    names = [item.application for item in found.sets]
    assert [name for place, name in enumerate(names) if name not in names[:place]] == [
        item.name for item in found.applications
    ], "sets of an application stand together"
    assert names[0] == "cardiac" and found.sets[0].name == "CAMUS" and names[-1] == "not named"


def run(data, *arguments):
    return main(["figure2", "--data", str(data), "--out", "out", *arguments])


def test_what_is_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k))[1])
    data = write(tmp_path / "data")
    (data / "manifest.json").write_text(json.dumps({"totals": {"excluded": {"images": 5}}}))
    assert run(data) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-3:] == [f"wrote out/figure2.{end}" for end in ("csv", "png", "svg")]
    assert "Here: 9 images and 15 masks of 5 sets" in out and "on no side: 5 images" in out
    assert ["liver", "1", "2", "840", "2,207"] in [line.split() for line in out.splitlines()]
    applications, sets = drawn[0].axes
    for axis, names in ((applications, ["liver", "breast lesions"]), (sets, ["BUS-BRA", "clinic", "CAMUS"])):
        assert axis.get_xscale() == "log"
        labels = [text.get_text() for text in axis.get_yticklabels()]
        for name in names:
            assert points_at(axis, labels.index(name)) == expected(read_collection(data), name)
        low, high = axis.get_xlim()
        assert all(low < x < high for line in axis.get_lines() for x in line.get_xdata())
    with Path("out/figure2.csv").open(newline="") as stream:
        lines = {(line["kind"], line["name"]): line for line in csv.DictReader(stream)}
    assert lines["set", "BUS-BRA"]["masks"] == "4" and lines["total", "all"]["paper_images"] == "186894"
    pixels = read_image(Path("out/figure2.png")).astype(int)
    for colour in COLOURS[:2]:
        near = np.abs(pixels - [int(colour[place : place + 2], 16) for place in (1, 3, 5)]).max(axis=2) < 30
        half = pixels.shape[1] // 2
        assert near[:, :half].sum() > 100 < near[:, half:].sum(), "dots of both kinds are in both panels"
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    assert set(before) == {"figure2.csv", "figure2.png", "figure2.svg"} and b"<svg" in before["figure2.svg"]
    assert run(data) == 0
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before


def points_at(axis, place):
    """Numbers of the dots of a line of a panel, with whether they are hollow."""
    dots = [line for line in axis.get_lines() if line.get_linestyle() == "None" and len(line.get_xdata())]
    return {
        (float(line.get_xdata()[0]), line.get_markerfacecolor() == "white")
        for line in dots
        if abs(float(line.get_ydata()[0]) - place) < 0.5
    }


def expected(found, name):
    (item,) = {entry.name: entry for entry in (*found.sets, *found.applications) if entry.name == name}.values()
    return {
        (float(number), hollow)
        for count, hollow in ((item.ours, False), (item.paper, True))
        for number in (count.images, count.masks)
        if number
    }


def test_what_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = write(tmp_path / "data")
    (data / "val.agnostic.json").unlink()
    assert run(data) == 2
    assert f"val.agnostic.json does not exist; run `python -m data_prep prepare {data}`" in capsys.readouterr().err
    for text, message in (
        ("{", "no JSON file"), ("[]", "a JSON object was expected"), ('{"images": [{"id": 1}]}', "name their dataset"),
        ('{"images": [], "annotations": [{"image_id": 3}]}', "name their dataset"),
    ):  # fmt: skip
        (data / "val.agnostic.json").write_text(text)
        with pytest.raises(DataError, match=message):
            read_collection(data)
    write(data)
    (data / "manifest.json").write_text("{}")
    assert run(data) == 2 and "no manifest of a collection" in capsys.readouterr().err
    with pytest.raises(DataError, match="images were expected"):
        read_collection(write(tmp_path / "empty", {split: [] for split in IMAGES}))
    for option in (["--weights", "sam=x.pth"], ["--only", "sam"], ["--results", "a=b"], ["--cfg-options", "a=1"]):
        assert run(data, *option) == 2
        assert f"{option[0]} is not for figure2" in capsys.readouterr().err
    assert not Path("out").exists()
