"""Every fault of a COCO file: found, repaired, read by the trainer's reader, and not found a second time."""

from __future__ import annotations

import argparse
import copy
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from data_prep.doctor.command import add_parser
from ultrasam.datasets.coco import check_files, read_coco
from ultrasam.errors import UltraSamError

HEIGHT, WIDTH = 40, 60
NAN, INFINITY = float("nan"), float("inf")


def run(*arguments: object) -> int:
    """Run the command as the command line does."""
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers(required=True))
    options = parser.parse_args(["doctor", *map(str, arguments)])
    try:
        return options.run(options)
    except UltraSamError as error:
        print(f"error: {error}")
        return 2


def rle(mask: np.ndarray) -> dict:
    made = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(map(int, made["size"])), "counts": made["counts"].decode()}


def runs(mask: np.ndarray) -> list[int]:
    """Run lengths in column order, background first, counted pixel by pixel."""
    lengths, value = [0], 0
    for pixel in mask.T.reshape(-1).astype(int).tolist():
        if pixel != value:
            lengths.append(0)
            value = pixel
        lengths[-1] += 1
    return lengths


def block(top: int, left: int, bottom: int, right: int, shape=(HEIGHT, WIDTH)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


MASK = block(10, 5, 20, 25)
SQUARE = [5, 10, 25, 10, 25, 20, 5, 20]


def base() -> dict:
    """Three images with one object each; nothing to repair."""
    return {
        "images": [{"id": number, "file_name": f"{name}.png", "height": HEIGHT, "width": WIDTH}
                   for number, name in ((1, "a"), (2, "b"), (3, "c"))],
        "annotations": [{"id": number, "image_id": number, "category_id": 1 + number % 2, "iscrowd": 0,
                         "segmentation": rle(MASK), "area": 200, "bbox": [5, 10, 20, 10]} for number in (1, 2, 3)],
        "categories": [{"id": 1, "name": "liver"}, {"id": 2, "name": "mass"}],
    }


def place(folder: Path, document: object) -> Path:
    """Write the document and its three images; no two are alike."""
    folder.mkdir(exist_ok=True)
    for number, name in enumerate("abc"):
        if not (folder / f"{name}.png").exists():
            Image.new("RGB", (WIDTH, HEIGHT), (40 * number, 90, 30)).save(folder / f"{name}.png")
    path = folder / "found.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def rows(output: str) -> dict[str, tuple[int, str, str]]:
    """Fault to (how many, changed, left) of the printed table."""
    lines = output.splitlines()
    head = next((line for line in lines if line.startswith("fault ")), None)
    if head is None:
        return {}
    at = [head.index(word) for word in ("how many", "example")]
    changed = head.index("would be changed") if "would be changed" in head else head.index("changed", at[1])
    left = head.rindex("would be left") if "would be left" in head else head.rindex("left")
    table = {}
    for line in lines[lines.index(head) + 1:-1]:
        table[line[:at[0]].strip()] = (int(line[at[0]:at[1]]), line[changed:left].strip(), line[left:].strip())
    return table


def fixed(source: Path, out: Path, capsys, caplog, *more: object) -> tuple[int, dict, dict]:
    """Repair; check that the copy is sound and complete; return status, table and the new document."""
    before = {path: path.read_bytes() for path in source.parent.rglob("*") if path.is_file()}
    assert run(source, *more) == 1
    diagnosed = rows(capsys.readouterr().out)
    status = run(source, "--fix", out, *more)
    output = capsys.readouterr().out
    assert output.splitlines()[-1].startswith(f"wrote {out} (")
    table = rows(output)
    assert table == diagnosed
    assert status == int(any(left != "-" for _, _, left in table.values()))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        collection = read_coco(out / "annotations.json", out)
    assert not caplog.records
    assert check_files(collection) == []
    assert collection.dropped == []
    assert run(out / "annotations.json") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing needs repair"
    assert run(out) == 0
    assert before == {path: path.read_bytes() for path in before}
    assert {path.name for path in out.iterdir()} <= {"annotations.json", "images", "left_out.json"}
    capsys.readouterr()
    COCO(str(out / "annotations.json"))
    return status, table, json.loads((out / "annotations.json").read_text())


def decoded(record: dict) -> np.ndarray:
    """Mask of a record by pycocotools."""
    found = record["segmentation"]
    if isinstance(found, list):
        found = coco_mask.merge(coco_mask.frPyObjects(found, HEIGHT, WIDTH))
    return coco_mask.decode(found).astype(bool)


def spoil_first(**values: object):
    def spoil(document):
        document["annotations"][0].update(values)
    return spoil


def without(kind: str, key: str):
    def spoil(document):
        del document[kind][0][key]
    return spoil


def ids(*values: object):
    def spoil(document):
        for record, value in zip(document["annotations"], values, strict=True):
            record["id"] = value
    return spoil


def categories(*values: object, names=("liver", "mass")):
    """Change the ids of the categories, and those of the annotations with them."""
    def spoil(document):
        new = dict(zip((1, 2), values, strict=True))
        for record in document["annotations"]:
            record["category_id"] = new[record["category_id"]]
        document["categories"] = [{"id": value, "name": name} for value, name in zip(values, names, strict=True)]
    return spoil


def polygon(*parts: list, bbox=(5, 10, 20, 10)):
    return spoil_first(segmentation=list(parts), bbox=list(bbox))


# Faults of which the first object's mask is still the same after repair:
# (what is spoiled, the row of the table, how often).
HARMLESS = {
    "annotation_id_zero": (ids(0, 1, 2), "annotation id 0 (counts as 'no match')", 1),
    "annotation_ids_twice": (ids(5, 5, 6), "annotation id used twice", 2),
    "annotation_ids_text": (ids("1", "2", "x"), "annotation id is text", 3),
    "annotation_ids_128_bit": (ids(2**100, 2**101, 3), "annotation id negative or of more than 63 bits", 2),
    "annotation_id_negative": (ids(-1, 2, 3), "annotation id negative or of more than 63 bits", 1),
    "annotation_id_fraction": (ids(1.5, 2, 3), "annotation id is no whole number", 1),
    "annotation_id_missing": (without("annotations", "id"), "annotation without id", 1),
    "categories_from_zero": (categories(0, 1), "category ids from 0", 1),
    "categories_with_gaps": (categories(3, 7), "category ids with gaps", 1),
    "categories_from_two": (categories(2, 3), "category ids with gaps", 1),
    "category_ids_text": (categories("1", "2"), "category id missing or not a whole number", 2),
    "one_name_twice": (categories(1, 2, names=("liver", "liver")), "category name used twice", 1),
    "no_name": (categories(1, 2, names=("", "mass")), "category without a name", 1),
    "category_unknown": (spoil_first(category_id=9), "category_id that is no category", 1),
    "category_null": (spoil_first(category_id=None), "category_id missing or not an id", 1),
    "runs_listed": (spoil_first(segmentation={"size": [HEIGHT, WIDTH], "counts": runs(MASK)}),
                    "RLE with a list of counts (uncompressed)", 1),
    "size_swapped": (spoil_first(segmentation={**rle(MASK), "size": [WIDTH, HEIGHT]}),
                     "RLE size [width, height]", 1),
    "rows_first": (spoil_first(segmentation=rle(MASK.T)), "RLE size [width, height]", 1),
    "rows_first_without_box": (spoil_first(segmentation=rle(MASK.T), bbox=None), "RLE size [width, height]", 1),
    "size_swapped_without_box": (spoil_first(segmentation={**rle(MASK), "size": [WIDTH, HEIGHT]}, bbox=None),
                                 "RLE size [width, height]", 1),
    "size_wrong": (spoil_first(segmentation={**rle(MASK), "size": [7, 9]}), "RLE size is not that of the image", 1),
    "size_missing": (spoil_first(segmentation={"counts": rle(MASK)["counts"]}), "RLE size is not that of the image", 1),
    "counts_are_bytes": (spoil_first(segmentation={"size": [HEIGHT, WIDTH],
                                                   "counts": str(rle(MASK)["counts"].encode())}),
                         "RLE whose counts are bytes written as text or numbers", 1),
    "counts_are_codes": (spoil_first(segmentation={"size": [HEIGHT, WIDTH],
                                                   "counts": list(rle(MASK)["counts"].encode())}),
                         "RLE whose counts are bytes written as text or numbers", 1),
    "area_missing": (without("annotations", "area"), "area missing or impossible", 1),
    "area_wrong": (spoil_first(area=4), "area does not fit the mask", 1),
    "area_nan": (spoil_first(area=NAN), "area missing or impossible", 1),
    "bbox_missing": (without("annotations", "bbox"), "bbox missing or impossible", 1),
    "bbox_corners": (spoil_first(bbox=[5, 10, 25, 20]), "bbox does not fit the mask", 1),
    "bbox_nan": (spoil_first(bbox=[NAN, 1, 2, 3]), "bbox missing or impossible", 1),
    "iscrowd_missing": (without("annotations", "iscrowd"), "iscrowd missing or not 0 or 1", 1),
    "polygon_odd": (polygon([*SQUARE, 5]), "polygon with an odd number of values", 1),
    "polygon_odd_at_the_start": (polygon([7, *SQUARE]), "polygon with an odd number of values", 1),
    "polygon_nan": (polygon([5, 10, NAN, 12, *SQUARE[2:]]), "polygon with NaN, null or text", 1),
    "polygon_null": (polygon([*SQUARE, None, 3]), "polygon with NaN, null or text", 1),
    "polygon_texts": (polygon([str(value) for value in SQUARE]), "polygon with NaN, null or text", 1),
    "polygon_one_point_far": (polygon([*SQUARE, 2e8, 10]), "polygon with points far outside the image", 1),
    "polygon_flat": (spoil_first(segmentation=list(SQUARE)), "polygon not in a list of polygons", 1),
    "polygon_pairs": (spoil_first(segmentation=[[5, 10], [25, 10], [25, 20], [5, 20]]), "polygon of [x, y] pairs", 1),
    "polygon_pairs_in_a_list": (polygon([[5, 10], [25, 10], [25, 20], [5, 20]]), "polygon of [x, y] pairs", 1),
    "polygon_and_a_number": (spoil_first(segmentation=[list(SQUARE), 5]), "polygons mixed with other values", 1),
    "polygon_and_an_empty_one": (polygon(SQUARE, []), "polygon of fewer than three points", 1),
    "polygon_and_two_points": (polygon(SQUARE, [1, 1, 3, 3]), "polygon of fewer than three points", 1),
    "nan_elsewhere": (spoil_first(score=NAN), "NaN, broken text or deep nesting", 1),
    "half_a_letter": (spoil_first(note="\ud800"), "NaN, broken text or deep nesting", 1),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_fault_is_repaired_without_loss(name, tmp_path, capsys, caplog):
    spoil, fault, count = HARMLESS[name]
    document = base()
    spoil(document)
    status, table, repaired = fixed(place(tmp_path / "in", document), tmp_path / "out", capsys, caplog)
    assert table[fault][0] == count
    assert status == 0
    assert not (tmp_path / "out/left_out.json").exists()
    assert len(repaired["images"]) == len(repaired["annotations"]) == 3
    for record, image_id in zip(repaired["annotations"], (1, 2, 3), strict=True):
        np.testing.assert_array_equal(decoded(record), MASK)
        assert record["image_id"] == image_id
        assert record["bbox"] == [5, 10, 20, 10]
        assert record["area"] == 200
    assert [record["id"] for record in repaired["categories"]] == list(range(1, len(repaired["categories"]) + 1))


@pytest.mark.parametrize(("name", "names"), [
    ("categories_from_zero", ["mass", "liver", "mass"]), ("categories_with_gaps", ["mass", "liver", "mass"]),
    ("one_name_twice", ["liver", "liver", "liver"]), ("category_unknown", ["category_9", "liver", "mass"]),
    ("category_null", ["unknown", "liver", "mass"]), ("no_name", ["mass", "category_1", "mass"]),
])
def test_objects_keep_their_category_by_name(name, names, tmp_path, capsys, caplog):
    document = base()
    HARMLESS[name][0](document)
    _, _, repaired = fixed(place(tmp_path / "in", document), tmp_path / "out", capsys, caplog)
    by_id = {record["id"]: record["name"] for record in repaired["categories"]}
    assert [by_id[record["category_id"]] for record in repaired["annotations"]] == names


def test_one_category_id_with_two_names_becomes_a_name_of_both(tmp_path, capsys, caplog):
    document = base()
    document["categories"] = [{"id": 1, "name": "cyst"}, {"id": 1, "name": "liver"}, {"id": 2, "name": "mass"}]
    status, table, repaired = fixed(place(tmp_path / "in", document), tmp_path / "out", capsys, caplog)
    assert status == 0
    assert table["category id used twice"][0] == 1
    assert [record["name"] for record in repaired["categories"]] == ["cyst or liver", "mass"]


def test_no_categories_and_no_annotations(tmp_path, capsys, caplog):
    document = {"images": base()["images"]}
    status, table, repaired = fixed(place(tmp_path / "in", document), tmp_path / "out", capsys, caplog)
    assert status == 0
    assert set(table) == {"no list of annotations", "no list of categories", "no category at all"}
    assert repaired["categories"] == [{"id": 1, "name": "object"}]


# Objects without a mask that can be made: (segmentation, bbox, row, whether something is left).
MASKLESS = {
    "empty_list": ([], None, "annotation without mask and box", False),
    "empty_polygon": ([[]], [0, 0, 0, 0], "annotation without mask and box", False),
    "null": (None, [], "annotation without mask and box", False),
    "all_background": (rle(block(0, 0, 0, 0)), None, "mask without a single pixel", False),
    "thin": ([[5, 5, 5.1, 5, 5.1, 5.1]], None, "mask without a single pixel", False),
    "empty_with_box": ([], [5, 10, 20, 10], "box but no mask", True),
    "nested_empty_with_box": ([[]], [5, 10, 20, 10], "box but no mask", True),
    "two_points": ([[1, 1, 3, 3]], None, "polygon of fewer than three points", True),
    "two_points_with_box": ([[5, 10, 25, 20]], [5, 10, 20, 10], "polygon of fewer than three points", True),
    "all_nan": ([[NAN] * 8], None, "polygon with NaN, null or text", True),
    "huge": ([[2e8, 2e8, 3e8, 2e8, 3e8, 3e8]], None, "polygon with points far outside the image", True),
    "outside": ([[70, 50, 80, 50, 80, 60]], None, "polygon outside the image", True),
    "negative": ([[-20, -20, -10, -20, -10, -10]], None, "polygon outside the image", True),
    "odd_in_the_middle": ([[5, 10, 25, 10, 20, 5, 20]], [5, 10, 20, 10], "polygon with an odd number of values", True),
    "damaged": ({"size": [HEIGHT, WIDTH], "counts": "0~~"}, None, "damaged RLE", True),
    "wrong_sum": ({"size": [HEIGHT, WIDTH], "counts": [1, 2, 3]}, None, "damaged RLE", True),
    "other_shape": (rle(block(1, 1, 4, 4, (10, 60))), None, "RLE size is not that of the image", True),
    "number": (17, None, "segmentation of an unknown kind", True),
}


@pytest.mark.parametrize("name", MASKLESS)
def test_object_without_mask_is_removed_or_set_aside(name, tmp_path, capsys, caplog):
    segmentation, bbox, fault, left = MASKLESS[name]
    document = base()
    spoil_first(segmentation=segmentation, bbox=bbox)(document)
    original = copy.deepcopy(document["annotations"][0])
    status, table, repaired = fixed(place(tmp_path / "in", document), tmp_path / "out", capsys, caplog)
    assert table[fault][0] == 1
    assert (table[fault][2] != "-") == left
    assert status == int(left)
    assert [record["image_id"] for record in repaired["annotations"]] == [2, 3]
    assert len(repaired["images"]) == 3
    assert repaired["images"][0].get("set_aside") == (1 if left else None)
    (aside,) = json.loads((tmp_path / "out/left_out.json").read_text())["annotations"]
    assert aside["record"]["image_id"] == 1
    assert aside["reason"]
    if name != "all_nan":
        assert aside["record"] == original


@pytest.mark.parametrize("name", ["empty_with_box", "nested_empty_with_box", "two_points_with_box"])
def test_boxes_become_masks_when_asked(name, tmp_path, capsys, caplog):
    segmentation, bbox, fault, _ = MASKLESS[name]
    document = base()
    spoil_first(segmentation=segmentation, bbox=bbox)(document)
    status, table, repaired = fixed(place(tmp_path / "in", document), tmp_path / "out", capsys, caplog,
                                    "--boxes-to-masks")
    assert status == 0
    assert table[fault] == (1, "1 repaired: their box drawn as the mask", "-")
    np.testing.assert_array_equal(decoded(repaired["annotations"][0]), MASK)


def test_box_is_cut_at_the_border_when_it_becomes_a_mask(tmp_path, capsys, caplog):
    document = base()
    spoil_first(segmentation=None, bbox=[50, 30, 1000, 1000], area=100)(document)
    _, _, repaired = fixed(place(tmp_path / "in", document), tmp_path / "out", capsys, caplog, "--boxes-to-masks")
    np.testing.assert_array_equal(decoded(repaired["annotations"][0]), block(30, 50, HEIGHT, WIDTH))
    assert repaired["annotations"][0]["bbox"] == [50, 30, 10, 10]


def test_polygon_across_the_border_is_cut(tmp_path, capsys, caplog):
    document = base()
    spoil_first(segmentation=[[50, 30, 90, 30, 90, 55, 50, 55]], bbox=None, area=None)(document)
    status, table, repaired = fixed(place(tmp_path / "in", document), tmp_path / "out", capsys, caplog)
    assert status == 0
    assert table["polygon that leaves the image"][1] == "1 cut at the border"
    np.testing.assert_array_equal(decoded(repaired["annotations"][0]), block(30, 50, HEIGHT, WIDTH))


def test_rle_of_a_reduced_image_is_resized(tmp_path, capsys, caplog):
    document = base()
    spoil_first(segmentation=rle(block(5, 10, 10, 20, (20, 30))), bbox=None, area=None)(document)
    status, _, repaired = fixed(place(tmp_path / "in", document), tmp_path / "out", capsys, caplog)
    assert status == 0
    np.testing.assert_array_equal(decoded(repaired["annotations"][0]), block(10, 20, 20, 40))


def test_object_listed_twice_is_kept_once(tmp_path, capsys, caplog):
    document = base()
    document["annotations"].append({**document["annotations"][0], "id": 4})
    status, table, repaired = fixed(place(tmp_path / "in", document), tmp_path / "out", capsys, caplog)
    assert status == 0
    assert table["same object listed twice"][0] == 1
    assert [record["id"] for record in repaired["annotations"]] == [1, 2, 3]


def test_annotation_of_no_image_is_set_aside(tmp_path, capsys, caplog):
    document = base()
    spoil_first(image_id=77)(document)
    status, table, repaired = fixed(place(tmp_path / "in", document), tmp_path / "out", capsys, caplog)
    assert status == 1
    assert table["image_id that is no image"][0] == 1
    assert [record["image_id"] for record in repaired["annotations"]] == [2, 3]


def test_records_by_key_and_records_that_are_none(tmp_path, capsys, caplog):
    document = base()
    document["annotations"] = {str(record["id"]): record for record in document["annotations"]}
    document["categories"].append("kidney")
    status, table, repaired = fixed(place(tmp_path / "in", document), tmp_path / "out", capsys, caplog)
    assert status == 1
    assert table["records in a JSON object instead of a list"][0] == table["record that is no JSON object"][0] == 1
    assert len(repaired["annotations"]) == 3
    assert json.loads((tmp_path / "out/left_out.json").read_text())["categories"][0]["record"] == "kidney"


def test_original_ids_stay_with_numbered_records(tmp_path, capsys, caplog):
    document = base()
    ids("x", "y", "z")(document)
    _, _, repaired = fixed(place(tmp_path / "in", document), tmp_path / "out", capsys, caplog)
    assert [record["source_id"] for record in repaired["annotations"]] == ["x", "y", "z"]


def test_healthy_file_is_left_alone(tmp_path, capsys):
    document = base()
    # Holes, a polygon with corners on and a little beyond the border, and the polygon's own area are all sound.
    ring = MASK.copy()
    ring[13:16, 10:20] = False
    document["annotations"][0].update(segmentation=rle(ring), area=170)
    document["annotations"][1].update(segmentation=[[0, 0, 60.4, 0, 60, 40, 0, 40]], area=2408.0, bbox=[0, 0, 60.4, 40])
    document["annotations"][2].update(iscrowd=1, score=0.5)
    document["info"] = {"year": 2024}
    source = place(tmp_path / "in", document)
    assert run(source) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing needs repair"
    assert run(source, "--fix", tmp_path / "out") == 0
    assert "nothing needs repair; wrote a copy" in capsys.readouterr().out.splitlines()[-1]
    copied = json.loads((tmp_path / "out/annotations.json").read_text())
    for record in copied["images"]:
        record["file_name"] = record["file_name"].removeprefix("images/")
    assert copied == document
    assert (tmp_path / "out/images/a.png").read_bytes() == (tmp_path / "in/a.png").read_bytes()


def test_out_must_be_new_and_nothing_is_left_of_a_failure(tmp_path, capsys, monkeypatch):
    source = place(tmp_path / "in", base())
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "x").write_text("x")
    assert run(source, "--fix", taken) == 2
    assert "taken: a new or empty folder was expected" in capsys.readouterr().out

    def fail(*_):
        raise UltraSamError("no space")
    monkeypatch.setattr("data_prep.doctor.publish.write_coco", fail)
    assert run(source, "--fix", tmp_path / "out") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "taken"]


@pytest.mark.parametrize(("text", "words"), [
    ("", "is empty (0 bytes)"), ("{", "not valid JSON"), ("[1]", "one JSON object"), ("{}", "'images'"),
    ('{"images": 3}', "found 3"), ('{"images": []}', "no image record"), ("\ufeff{}", "'images'"),
    ('{"images": [{"id": 1}], "annotations": 5}', "'annotations'"), ("[" * 100_000, "not a sound COCO file"),
])
def test_what_is_no_coco_file_is_said_in_one_sentence(text, words, tmp_path, capsys):
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    assert run(path, "--fix", tmp_path / "out") == 2
    output = capsys.readouterr().out
    assert words in output
    assert len(output.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_missing_folder_of_images_is_named(tmp_path, capsys):
    assert run(place(tmp_path / "in", base()), "--images", tmp_path / "nowhere") == 2
    assert "nowhere: the folder of the images was expected" in capsys.readouterr().out
