"""Large collections: the synthetic one of the benchmark, and reading annotation files in portions."""

from __future__ import annotations

import gc
import json
from collections import Counter
from functools import partial

import pytest
from collection_sets import checksums, load

from data_prep import benchmark
from data_prep.collection.merge import merge
from data_prep.collection.synthetic import make_synthetic_sets
from ultrasam.datasets import coco
from ultrasam.datasets.coco import read_coco
from ultrasam.errors import DataError

SETS, IMAGES, MASKS = 5, 400, 650


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    make_synthetic_sets(folder, sets=SETS, images=IMAGES, masks=MASKS)
    merge(folder, infos={}, confirm=False)
    return folder


def test_the_synthetic_collection_has_the_size_asked_for(synthetic):
    manifest = load(synthetic, "manifest.json")
    totals = Counter()
    for counts in manifest["totals"].values():
        totals.update(counts)
    assert totals == {"images": IMAGES, "masks": MASKS}
    assert len(manifest["sets"]) == SETS
    sizes = [sum(side["images"] for side in entry["splits"].values()) for entry in manifest["sets"].values()]
    assert sizes == sorted(sizes, reverse=True)
    assert manifest["totals"]["test"]["images"] > 0
    assert manifest["near_duplicates"]["blank_hashes"] == manifest["near_duplicates"]["crowded_hashes"] == 0


def test_the_synthetic_collection_is_the_same_every_time(synthetic, tmp_path):
    make_synthetic_sets(tmp_path, sets=SETS, images=IMAGES, masks=MASKS)
    merge(tmp_path, infos={}, confirm=False)
    assert checksums(tmp_path) == checksums(synthetic)


def test_reading_in_portions_gives_the_same(synthetic, monkeypatch):
    path = synthetic / "train.agnostic.json"
    whole = read_coco(path, synthetic)
    document = json.loads(path.read_text())
    assert sum(len(image.objects) for image in whole.images) == len(document["annotations"]) > 200
    for portion in (1, 7, 100):
        monkeypatch.setattr(coco, "_PORTION", portion)
        assert read_coco(path, synthetic).images == whole.images


def test_faults_are_named_and_empty_masks_counted_in_every_portion(synthetic, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(coco, "_PORTION", 10)
    document = json.loads((synthetic / "val.agnostic.json").read_text())
    items = document["annotations"]
    height, width = items[3]["segmentation"]["size"]
    for position in (3, 15):
        size = items[position]["segmentation"]["size"]
        items[position]["segmentation"] = {"size": size, "counts": [size[0] * size[1]]}
    path = tmp_path / "val.json"
    path.write_text(json.dumps(document))
    assert [number for number, _ in read_coco(path, tmp_path).dropped] == [4, 16]
    assert f"2 of {len(items)} objects left out because their mask is empty (annotations 4, 16)" in caplog.text
    items[17]["segmentation"]["counts"] = "0P"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"annotation 18: the compressed RLE string is damaged"):
        read_coco(path, tmp_path)
    items[12]["segmentation"] = {"size": [width + 1, height], "counts": "0"}
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"annotation 13: the RLE has size"):
        read_coco(path, tmp_path)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_left_as_it_was(synthetic, tmp_path, enabled):
    (tmp_path / "bad.json").write_text("{}")
    try:
        if not enabled:
            gc.disable()
        read_coco(synthetic / "val.agnostic.json", synthetic)
        assert gc.isenabled() is enabled
        with pytest.raises(DataError):
            read_coco(tmp_path / "bad.json", tmp_path)
        assert gc.isenabled() is enabled
    finally:
        gc.enable()


def test_the_benchmark_prints_a_line_for_every_step(tmp_path, capsys, monkeypatch):
    # In this process and without PyTorch, which take seconds to start.
    monkeypatch.setattr(benchmark, "_load", lambda path: partial(read_coco, path, path.parent))
    monkeypatch.setattr(benchmark, "_measure", lambda what, target, step, *arguments: benchmark.Measured(
        what, *benchmark._run(step, arguments), target))
    assert benchmark.main(["--images", "60", "--masks", "80", "--sets", "3", "--folder", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "merge and split 80 masks in 60 images of 3 sets", "load the merged training file"]
    assert "target 90 s, 3 GB" in lines[0]
    assert "target 20 s, 2 GB" in lines[1]
    assert list(tmp_path.iterdir()) == []


def test_the_benchmark_says_what_is_wrong(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "_measure", lambda what, target, step, *arguments: benchmark.Measured(
        what, *benchmark._run(step, arguments), target))
    assert benchmark.main(["--bus-bra", str(tmp_path / "absent"), "--folder", str(tmp_path)]) == 2
    assert "benchmark_data: " in capsys.readouterr().err
