"""BUS-BRA from raw files to COCO, on a miniature and on the real files."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from data_prep.cli import main

SPLITS = ("train", "val", "test")


def run(source: Path, out: Path, *more: str) -> int:
    return main(["convert", "bus_bra", "--source", str(source), "--out", str(out), "--workers", "1", *more])


def load(out: Path, split: str, twin: str = "") -> dict:
    return json.loads((out / f"bus_bra/annotations/{split}.bus_bra{twin}.json").read_text())


def test_every_image_mask_class_and_group_is_the_raw_one(mini, tmp_path):
    out = tmp_path / "out"
    assert run(mini.source, out, "--validation-fraction", "0.3") == 0
    seen = {}
    for split in SPLITS:
        document = load(out, split)
        assert document["categories"] == [{"id": 1, "name": "benign"}, {"id": 2, "name": "malignant"}]
        assert [image["id"] for image in document["images"]] == list(range(1, len(document["images"]) + 1))
        by_image = {item["image_id"]: item for item in document["annotations"]}
        assert len(by_image) == len(document["annotations"]) == len(document["images"])
        for image in document["images"]:
            name = Path(image["file_name"]).stem
            item, truth = by_image[image["id"]], mini.masks[name]
            assert (out / image["file_name"]).read_bytes() == mini.image(name).read_bytes()
            assert (image["height"], image["width"]) == truth.shape
            assert image["group"] == f"bus_bra/{mini.cases[name]}"
            assert (image["split"], image["dataset"]) == (split, "bus_bra")
            assert image["class"] == mini.classes[name]
            assert image["source"] == f"BUSBRA/Images/{name}.png"
            assert item["category_id"] == {"benign": 1, "malignant": 2}[mini.classes[name]]
            np.testing.assert_array_equal(coco_mask.decode(item["segmentation"]).astype(bool), truth)
            assert item["area"] == truth.sum()
            left = 8 + mini.cases[name]
            assert item["bbox"] == [left, 12, 18, 18]
            seen[name] = split
    assert seen.keys() == mini.masks.keys()
    assert {name for name, split in seen.items() if split == "test"} == {
        name for name, fold in mini.folds.items() if fold == 1}
    by_case = {}
    for name, split in seen.items():
        by_case.setdefault(mini.cases[name], set()).add(split)
    assert all(len(sides) == 1 for sides in by_case.values())
    # 30 % of the 14 training images, whole patients of one or two images at a time.
    assert 5 <= Counter(seen.values())["val"] <= 6


def test_agnostic_twin_differs_in_categories_only(mini, tmp_path):
    assert run(mini.source, tmp_path) == 0
    for split in SPLITS:
        named, twin = load(tmp_path, split), load(tmp_path, split, ".agnostic")
        assert twin["categories"] == [{"id": 1, "name": "object"}]
        assert {item.pop("category_id") for item in twin["annotations"]} == {1}
        for item in named["annotations"]:
            del item["category_id"]
        assert (named["images"], named["annotations"]) == (twin["images"], twin["annotations"])


def test_pycocotools_reads_the_files(mini, tmp_path):
    assert run(mini.source, tmp_path) == 0
    coco = COCO(str(tmp_path / "bus_bra/annotations/test.bus_bra.json"))
    assert len(coco.getImgIds(catIds=coco.getCatIds(catNms=["malignant"]))) == 2


def test_folds_can_be_chosen_and_the_others_stay_out(mini, tmp_path, capsys):
    for name, fold in mini.folds.items():
        if fold == 5:
            mini.image(name).unlink()
    assert run(mini.source, tmp_path, "--test-folds", "2", "--train-folds", "3", "4") == 0
    folds = {split: {image["fold"] for image in load(tmp_path, split)["images"]} for split in SPLITS}
    assert folds["test"] == {2}
    assert folds["train"] | folds["val"] == {3, 4}
    assert "7 in folds not asked for" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "words"), [
    (["--test-folds", "7"], ["[7]", "[1, 2, 3, 4, 5]"]),
    (["--test-folds", "1", "--train-folds", "1", "2"], ["[1]", "one side only"]),
    (["--validation-fraction", "1.5"], ["1.5"]),
])
def test_impossible_choices_are_refused(mini, tmp_path, capsys, arguments, words):
    out = tmp_path / "out"
    assert run(mini.source, out, *arguments) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words)
    assert not out.exists()


def test_missing_fold_is_named_and_fails_unless_told_to_go_on(mini, tmp_path, capsys):
    for name, fold in mini.folds.items():
        if fold == 5:
            mini.image(name).unlink()
            mini.mask(name).unlink()
    out = tmp_path / "out"
    assert run(mini.source, out) == 2
    message = capsys.readouterr().err
    for words in ("4 of 17 images", "4 with missing files", "fold 5: 4 of 4", "--keep-going",
                  "BUSBRA/Images/bus_0002-l.png and BUSBRA/Masks/mask_0002-l.png"):
        assert words in message
    assert not out.exists()
    assert run(mini.source, out, "--keep-going") == 0
    assert sum(len(load(out, split)["images"]) for split in SPLITS) == 13
    manifest = json.loads((out / "bus_bra/manifest.json").read_text())
    assert [item["key"] for item in manifest["failures"]] == [
        "bus_0002-l", "bus_0002-r", "bus_0010-l", "bus_0010-r"]
    assert len(list((out / "bus_bra/images").iterdir())) == 13


def _cut(mini):
    path = mini.image("bus_0004-l")
    path.write_bytes(path.read_bytes()[:200])


def _other_size(mini):
    Image.new("1", (9, 7)).save(mini.mask("bus_0004-l"))


def _grey(mini):
    mask = mini.masks["bus_0004-l"]
    Image.fromarray(np.where(mask, 255, 3).astype(np.uint8)).save(mini.mask("bus_0004-l"))


def _empty(mini):
    Image.fromarray(np.zeros_like(mini.masks["bus_0004-l"])).save(mini.mask("bus_0004-l"))


@pytest.mark.parametrize(("spoil", "words"), [
    (_cut, "bus_0004-l.png"), (_other_size, "9 x 7"), (_grey, "3, 255"), (_empty, "the mask is empty"),
])
def test_one_unusable_file_is_named_and_left_out(mini, tmp_path, capsys, spoil, words):
    spoil(mini)
    assert run(mini.source, tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert words in message
    assert "1 of 17 images" in message
    assert run(mini.source, tmp_path / "out", "--keep-going") == 0
    names = [image["file_name"] for split in SPLITS for image in load(tmp_path / "out", split)["images"]]
    assert len(names) == 16
    assert "bus_bra/images/bus_0004-l.png" not in names


def test_slips_of_the_table_are_listed_but_swapped_masks_stop_the_set(mini, tmp_path, capsys):
    mini.edit("bus_data.csv", "bus_0004-l", Height="999")
    assert run(mini.source, tmp_path) == 0
    manifest = json.loads((tmp_path / "bus_bra/manifest.json").read_text())
    (note,) = manifest["table_disagreements"]
    assert note.startswith("bus_0004-l:")
    assert "999" in note
    for name, shift in (("bus_0001-l", 1), ("bus_0007-r", 2)):
        Image.fromarray(np.roll(mini.masks[name], shift, axis=1)).save(mini.mask(name))
    capsys.readouterr()
    assert run(mini.source, tmp_path) == 2
    assert "disagree 3 times in 17 images" in capsys.readouterr().err


@pytest.mark.parametrize(("table", "values", "words"), [
    ("bus_data.csv", {"Pathology": "unknown"}, "unknown"),
    ("5-fold-cv.csv", {"Pathology": "benign"}, "no such ID with Pathology malignant"),
    ("5-fold-cv.csv", {"ID": "bus_9999-l"}, "no such ID"),
    ("5-fold-cv.csv", {"kFold": "NaN"}, "NaN"),
    ("bus_data.csv", {"BBOX": "[1,2,3]"}, "[1,2,3]"),
    ("bus_data.csv", {"ID": "bus_0004-r"}, "more than one line"),
])
def test_faulty_tables_are_refused(mini, tmp_path, capsys, table, values, words):
    mini.edit(table, "bus_0004-l", **values)
    assert run(mini.source, tmp_path / "out", "--keep-going") == 2
    message = capsys.readouterr().err
    assert words in message
    assert table in message or "5-fold-cv.csv" in message
    assert not (tmp_path / "out").exists()


def test_a_patient_on_two_sides_is_refused(mini, tmp_path, capsys):
    mini.edit("5-fold-cv.csv", "bus_0005-l", kFold="2")
    assert run(mini.source, tmp_path / "out", "--keep-going") == 2
    assert "1 groups are on two sides of the split (first: ['5'])" in capsys.readouterr().err


@pytest.mark.shared
def test_real_files(shared, tmp_path):
    source = shared / "data/bus_bra"
    assert main(["convert", "bus_bra", "--source", str(source), "--out", str(tmp_path), "--keep-going"]) == 0
    images = [image for split in SPLITS for image in load(tmp_path, split)["images"]]
    annotations = {split: load(tmp_path, split)["annotations"] for split in SPLITS}
    assert len(images) == sum(map(len, annotations.values())) == 1492
    assert Counter(image["fold"] for image in images) == {1: 376, 2: 385, 3: 366, 4: 365}
    assert len(annotations["test"]) == 376
    assert Counter(item["category_id"] for item in annotations["test"]) == {1: 254, 2: 122}
    assert len(annotations["val"]) == pytest.approx(0.05 * (1492 - 376), abs=2)
    groups = [{image["group"] for image in images if image["split"] == split} for split in SPLITS]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    manifest = json.loads((tmp_path / "bus_bra/manifest.json").read_text())
    assert len(manifest["failures"]) == 383
    assert {note.split(":")[0] for note in manifest["table_disagreements"]} == {
        "bus_0845-s", "bus_0856-l", "bus_0857-r", "bus_0990-l"}
    with (source / "BUSBRA/bus_data.csv").open() as stream:
        cases = {row["ID"]: row["Case"] for row in csv.DictReader(stream)}
    assert all(image["group"] == f"bus_bra/{cases[Path(image['file_name']).stem]}" for image in images)
    for item, image in zip(annotations["test"][::40], load(tmp_path, "test")["images"][::40], strict=True):
        raw = source / "BUSBRA/Masks" / Path(image["file_name"]).name.replace("bus_", "mask_")
        truth = np.array(Image.open(raw)) > 0
        np.testing.assert_array_equal(coco_mask.decode(item["segmentation"]) > 0, truth)
