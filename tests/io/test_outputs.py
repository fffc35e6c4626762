"""Label maps, overlays, COCO JSON and tables, read back by other libraries."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from ultrasam.errors import DataError
from ultrasam.io.images import read_mask
from ultrasam.io.outputs import (
    Answer,
    coco_document,
    label_map,
    write_coco,
    write_label_png,
    write_mask_pngs,
    write_measures,
    write_overlay,
)


def organ_and_lesion() -> np.ndarray:
    made = np.zeros((3, 20, 30), bool)
    made[1, 2:18, 3:25] = True  # the organ, second
    made[0, 5:9, 6:12] = True  # the lesion in it, first
    return made


def test_the_smaller_object_lies_on_top():
    masks = organ_and_lesion()
    labels, shared = label_map(masks)
    assert labels.dtype == np.uint8 and shared == masks[0].sum()
    np.testing.assert_array_equal(labels == 1, masks[0])
    np.testing.assert_array_equal(labels == 2, masks[1] & ~masks[0])
    equal = np.stack([masks[0], masks[0]])
    assert set(np.unique(label_map(equal)[0])) == {0, 2}  # of equal ones the later
    assert label_map(np.zeros((0, 4, 5), bool))[0].sum() == 0


def test_label_png_has_colours_and_keeps_numbers(tmp_path):
    path = tmp_path / "ü (1)" / "labels.png"
    assert write_label_png(path, organ_and_lesion()) == organ_and_lesion()[0].sum()
    labels = label_map(organ_and_lesion())[0]
    with Image.open(path) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), labels)
        colours = np.asarray(image.convert("RGB"))
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) == 3 and (colours[labels == 0] == 0).all()
    np.testing.assert_array_equal(read_mask(path, palette="index"), labels)


def test_many_objects_take_16_bits(tmp_path):
    masks = np.zeros((300, 20, 30), bool)
    masks.reshape(300, -1)[np.arange(300), np.arange(300)] = True
    write_label_png(tmp_path / "a.png", masks)
    with Image.open(tmp_path / "a.png") as image:
        assert np.asarray(image).ravel()[:300].tolist() == list(range(1, 301))
    with pytest.raises(DataError, match="holds up to 65535 objects, found 65536"):
        label_map(np.zeros((65536, 1, 1), bool))
    with pytest.raises(DataError, match=r"bool \(objects, height, width\), found uint8"):
        label_map(np.zeros((1, 2, 2), np.uint8))


def test_one_png_an_object_shows_it_whole(tmp_path):
    paths = write_mask_pngs(tmp_path, "scan", organ_and_lesion())
    assert [path.name for path in paths] == ["scan_mask_1.png", "scan_mask_2.png", "scan_mask_3.png"]
    for path, mask in zip(paths, organ_and_lesion(), strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), mask * np.uint8(255))


def test_overlay_is_drawn(tmp_path):
    image = np.full((20, 30, 3), 90, np.uint8)
    write_overlay(tmp_path / "a.png", image, organ_and_lesion(), points=[[10, 10]], labels=[0], boxes=[[2, 2, 25, 18]])
    drawn = np.asarray(Image.open(tmp_path / "a.png"))
    assert max(drawn.shape[:2]) >= 640 and len(np.unique(drawn.reshape(-1, 3), axis=0)) > 3


def answers() -> list[Answer]:
    masks = organ_and_lesion()
    return [
        Answer("ä b.dcm", masks, [0.9, 0.8, 0.1], 0, (0.5, 0.25), ["lesion", "organ", "lesion"],
               [{"box": [1, 2, 3, 4]}] * 3),
        Answer("ä b.dcm", masks[:1, ::-1], np.array([0.7], np.float32), 5, (0.5, 0.25), ["lesion"]),
        Answer("none.png", masks[:0], []),
    ]  # fmt: skip


def test_coco_tools_read_the_json(tmp_path, capsys):
    path = tmp_path / "a.json"
    write_coco(path, answers(), {"description": "test"})
    coco = COCO(path)
    assert sorted(coco.imgs) == [1, 2, 3] and sorted(coco.anns) == [1, 2, 3]  # the empty mask has no annotation
    assert [coco.imgs[1][key] for key in ("file_name", "height", "width", "frame")] == ["ä b.dcm", 20, 30, 0]
    for number, mask in ((1, answers()[0].masks[0]), (2, answers()[0].masks[1]), (3, answers()[1].masks[0])):
        found = coco.anns[number]
        np.testing.assert_array_equal(coco.annToMask(found), mask)
        x, y, width, height = found["bbox"]
        assert mask[y:y + height, x:x + width].sum() == mask.sum() == found["area"]
    assert [category["name"] for category in coco.loadCats([1, 2])] == ["lesion", "organ"]
    assert coco.anns[2]["object"] == 2 and coco.anns[2]["prompt"] == {"box": [1, 2, 3, 4]}
    assert coco.anns[1]["measures"]["area_mm2"] == pytest.approx(24 * 0.125)
    loaded = coco.loadRes([{key: found[key] for key in ("image_id", "category_id", "segmentation", "score")}
                           for found in coco.anns.values()])  # fmt: skip
    assert len(loaded.anns) == 3
    capsys.readouterr()


def test_nothing_found_is_still_a_coco_file():
    document = json.loads(json.dumps(coco_document([])))
    assert document == {"info": {}, "images": [], "annotations": [], "categories": [{"id": 1, "name": "object"}]}


def test_table_of_measures(tmp_path):
    path = tmp_path / "a.csv"
    write_measures(path, answers())
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["file"], row["frame"], row["object"], row["name"]) for row in rows] == [
        ("ä b.dcm", "0", "1", "lesion"), ("ä b.dcm", "0", "2", "organ"), ("ä b.dcm", "0", "3", "lesion"),
        ("ä b.dcm", "5", "1", "lesion")]  # fmt: skip
    first, empty = rows[0], rows[2]
    assert (first["area_px"], first["area_mm2"], first["x1"], first["y2"]) == ("24", "3", "6", "9")
    assert first["score"] == "0.9000" and float(first["centroid_x"]) == 8.5
    assert (empty["area_px"], empty["area_mm2"], empty["centroid_x"], empty["x2"]) == ("0", "0", "", "0")
    assert float(first["long_mm"]) < float(first["long_px"])
    write_measures(path, [Answer("a.png", organ_and_lesion(), [1, 1, 1])])
    with path.open(encoding="utf-8", newline="") as stream:
        assert all(row["area_mm2"] == row["long_mm"] == "" for row in csv.DictReader(stream))
