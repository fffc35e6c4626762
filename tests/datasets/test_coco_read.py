"""COCO files as users have them: repaired where that is safe, refused with a name where it is not."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ultrasam.datasets.coco import CocoCollection, check_files, read_coco
from ultrasam.errors import ConfigError, DataError
from ultrasam.geometry.rle import decode_mask, encode_mask

SQUARE = [[2, 1, 6, 1, 6, 5, 2, 5]]


def square_mask() -> np.ndarray:
    mask = np.zeros((8, 10), dtype=bool)
    mask[1:5, 2:6] = True
    return mask


def image(number: Any = 1, **other: Any) -> dict[str, Any]:
    return {"id": number, "file_name": f"toy/images/{number}.png", "height": 8, "width": 10, **other}


def annotation(number: Any = 1, **other: Any) -> dict[str, Any]:
    return {"id": number, "image_id": 1, "category_id": 1, "segmentation": SQUARE, "iscrowd": 0, **other}


def content(**other: Any) -> dict[str, Any]:
    base = {"images": [image()], "annotations": [annotation()], "categories": [{"id": 1, "name": "lesion"}]}
    return {**base, **other}


def read(folder: Path, classes: list[str] | None = None, **other: Any) -> CocoCollection:
    path = folder / "train.toy.json"
    path.write_text(json.dumps(content(**other)), encoding="utf-8")
    return read_coco(path, folder, classes=classes)


def test_a_sound_file(tmp_path: Path) -> None:
    record = image(7, dataset="bus", group="bus/3", split="train", spacing=[0.1, 0.2])
    found = read(tmp_path, images=[record], annotations=[annotation(4, image_id=7)])
    assert found.source == tmp_path / "train.toy.json"
    assert found.classes == ["lesion"]
    assert found.dropped == []
    (one,) = found.images
    assert (one.id, one.file_name, one.height, one.width) == (7, "toy/images/7.png", 8, 10)
    assert one.path == tmp_path / "toy/images/7.png"
    assert (one.dataset, one.group) == ("bus", "bus/3")
    assert one.extra == {"split": "train", "spacing": [0.1, 0.2]}
    (item,) = one.objects
    assert (item.annotation_id, item.label, item.area, item.iscrowd) == (4, 0, 16, False)
    assert item.box == (2.0, 1.0, 6.0, 5.0)
    np.testing.assert_array_equal(decode_mask(item.rle), square_mask())


def test_name_of_the_set_and_groups_are_derived_where_missing(tmp_path: Path) -> None:
    found = read(tmp_path, images=[image(1), image(2)])
    assert [one.dataset for one in found.images] == ["toy", "toy"]
    assert len({one.group for one in found.images}) == 2


@pytest.mark.parametrize("form", ["polygon", "compressed", "uncompressed"])
def test_forms_of_masks(tmp_path: Path, form: str) -> None:
    forms = {
        "polygon": SQUARE,
        "compressed": encode_mask(square_mask()),
        "uncompressed": {"size": [8, 10], "counts": [17, 4, 4, 4, 4, 4, 4, 4, 35]},
    }
    found = read(tmp_path, annotations=[annotation(segmentation=forms[form])])
    np.testing.assert_array_equal(decode_mask(found.images[0].objects[0].rle), square_mask())


def test_parts_of_an_object_are_united(tmp_path: Path) -> None:
    parts = [[0, 0, 2, 0, 2, 2, 0, 2], [7, 5, 9, 5, 9, 7, 7, 7]]
    (item,) = read(tmp_path, annotations=[annotation(segmentation=parts)]).images[0].objects
    assert item.area == 8
    assert item.box == (0.0, 0.0, 9.0, 7.0)


@pytest.mark.parametrize(
    "ids", [[0, 1], [5, 5], ["1", "2"], [2**100, 2**101], [None, 3], [-1, 2], [1.5, True], ["a", "a"]]
)
def test_annotation_ids_that_cannot_be_used_are_numbered_anew(
    tmp_path: Path, ids: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    records = [annotation(ids[0], image_id=2), annotation(ids[1], image_id=1)]
    found = read(tmp_path, images=[image(1), image(2)], annotations=records)
    by_image = {one.id: [item.annotation_id for item in one.objects] for one in found.images}
    assert by_image == {2: [1], 1: [2]}
    assert "numbered anew" in caplog.text
    given = found.images[0].objects[0].source_id
    assert given == (ids[1] if isinstance(ids[1], (int, str)) else None)


def test_sound_annotation_ids_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = read(tmp_path, annotations=[annotation(30), annotation(10)])
    assert [item.annotation_id for item in found.images[0].objects] == [30, 10]
    assert caplog.text == ""


def test_image_ids_of_text_are_numbered_anew_and_kept_aside(tmp_path: Path) -> None:
    images = [image("b-uuid"), image(2**100), image(0)]
    found = read(tmp_path, images=images, annotations=[annotation(1, image_id=2**100)])
    assert [(one.id, len(one.objects)) for one in found.images] == [(1, 0), (2, 1), (3, 0)]
    assert found.images[1].extra["source_id"] == 2**100


def test_image_ids_from_zero_and_as_digits_are_kept(tmp_path: Path) -> None:
    found = read(tmp_path, images=[image(0), image("3")], annotations=[annotation(1, image_id=3)])
    assert [(one.id, len(one.objects)) for one in found.images] == [(0, 0), (3, 1)]


@pytest.mark.parametrize("ids", [[0, 1], [3, 7], [7, 3]])
def test_category_ids_become_labels_in_their_order(tmp_path: Path, ids: list[int]) -> None:
    categories = [{"id": ids[0], "name": f"c{ids[0]}"}, {"id": ids[1], "name": f"c{ids[1]}"}]
    records = [annotation(1, category_id=ids[0]), annotation(2, category_id=ids[1])]
    found = read(tmp_path, categories=categories, annotations=records)
    assert found.classes == [f"c{number}" for number in sorted(ids)]
    labels = [item.label for item in found.images[0].objects]
    assert [found.classes[label] for label in labels] == [f"c{number}" for number in ids]


def test_classes_of_a_config_choose_the_order(tmp_path: Path) -> None:
    categories = [{"id": 0, "name": "benign"}, {"id": 1, "name": "malignant"}]
    records = [annotation(1, category_id=0)]
    found = read(tmp_path, ["malignant", "benign"], categories=categories, annotations=records)
    assert found.classes == ["malignant", "benign"]
    assert found.images[0].objects[0].label == 1


@pytest.mark.parametrize(
    "classes", [["benign"], ["benign", "malignant", "normal"], ["Benign", "malignant"], []]
)
def test_other_classes_are_refused_with_both_lists(tmp_path: Path, classes: list[str]) -> None:
    categories = [{"id": 1, "name": "benign"}, {"id": 2, "name": "malignant"}]
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, classes, categories=categories)
    assert repr(classes) in str(caught.value)
    assert "['benign', 'malignant']" in str(caught.value)
    assert "train.toy.json" in str(caught.value)


def test_one_name_is_not_a_list_of_letters(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'abc'"):
        read(tmp_path, "abc", categories=[{"id": i, "name": c} for i, c in enumerate("abc")])


def test_empty_masks_are_dropped_counted_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    empty = {"size": [8, 10], "counts": [80]}
    hair = [[2.01, 1.01, 2.02, 1.01, 2.02, 1.02]]
    records = [annotation(1, segmentation=empty), annotation(2), annotation(3, segmentation=hair)]
    with caplog.at_level(logging.WARNING):
        found = read(tmp_path, annotations=records)
    assert [item.annotation_id for item in found.images[0].objects] == [2]
    assert found.dropped == [(1, "the mask is empty"), (3, "the mask is empty")]
    assert len(caplog.records) == 1
    assert "2 of 3 objects left out" in caplog.text
    assert "1, 3" in caplog.text


def test_images_without_objects_stay(tmp_path: Path) -> None:
    found = read(tmp_path, images=[image(1), image(2)], annotations=[])
    assert [len(one.objects) for one in found.images] == [0, 0]


@pytest.mark.parametrize(("flag", "crowd"), [(1, True), (True, True), (0, False), (None, False)])
def test_crowds_are_marked(tmp_path: Path, flag: Any, crowd: bool) -> None:
    (item,) = read(tmp_path, annotations=[annotation(iscrowd=flag)]).images[0].objects
    assert item.iscrowd is crowd


@pytest.mark.parametrize("bbox", [[2, 1, 4, 4], [1.5, 1.25, 4.2, 4], [3, 2, 3, 3]])
def test_box_of_the_file_is_kept_where_it_fits(tmp_path: Path, bbox: list[float], caplog) -> None:
    (item,) = read(tmp_path, annotations=[annotation(bbox=bbox)]).images[0].objects
    assert item.box == (bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3])
    assert caplog.text == ""


@pytest.mark.parametrize(
    "bbox",
    [[0, 0, 1, 1], [2, 1, 0, 4], [2, 1, 4], [2, 1, math.nan, 4], "2,1,4,4", [2, 1, 9, 9], [1, 2, "4", 4]],
)
def test_box_that_does_not_fit_is_taken_from_the_mask_and_said(tmp_path: Path, bbox: Any, caplog) -> None:
    (item,) = read(tmp_path, annotations=[annotation(bbox=bbox, area=999)]).images[0].objects
    assert item.box == (2.0, 1.0, 6.0, 5.0)
    assert item.area == 16
    assert "1 boxes do not fit" in caplog.text


BAD_RECORDS = {
    "box only, empty": (
        {"annotations": [annotation(9, segmentation=[], bbox=[1, 1, 2, 2])]},
        "a box but no mask",
    ),
    "box only, missing": (
        {"annotations": [{"id": 9, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]}]},
        "annotation 9: the object has a box but no mask (segmentation None), but masks are needed",
    ),
    "no mask at all": (
        {"annotations": [annotation(9, segmentation=[[]])]},
        "annotation 9: the object has no mask",
    ),
    "two points": (
        {"annotations": [annotation(9, segmentation=[[1, 1, 3, 3]])]},
        "annotation 9: a polygon needs",
    ),
    "unknown image": (
        {"annotations": [annotation(9, image_id=5)]},
        "annotation 9: image_id 5 is not among the 1 images",
    ),
    "unknown category": (
        {"annotations": [annotation(9, category_id=0)]},
        "annotation 9: category_id 0 is not among the 1 categories",
    ),
    "no image id": (
        {"annotations": [{"id": 9, "category_id": 1}]},
        "annotation 9: the key 'image_id' is missing",
    ),
    "no category": (
        {"annotations": [{"id": 9, "image_id": 1}]},
        "annotation 9: the key 'category_id' is missing",
    ),
    "id of a list": (
        {"annotations": [annotation(9, image_id=[1])]},
        "an id must be a whole number or a text",
    ),
    "other size": (
        {"annotations": [annotation(9, segmentation={"size": [10, 8], "counts": [80]})]},
        "annotation 9: the RLE has size 10 x 8",
    ),
    "damaged counts": (
        {"annotations": [annotation(8), annotation(9, segmentation={"size": [8, 10], "counts": "0P"})]},
        "annotation 9: the compressed RLE string is damaged",
    ),
    "wrong sum": (
        {"annotations": [annotation(8), annotation(9, segmentation={"size": [8, 10], "counts": "4"})]},
        "annotation 9: the RLE covers 4 pixels but its image has 8 x 10 = 80",
    ),
    "image ids twice": (
        {"images": [image(1), image(1, file_name="b.png")]},
        "image id 1 is used by 'toy/images/1.png' and by 'b.png'",
    ),
    "image id as text and number": ({"images": [image(1), image("1")]}, "image id 1 is used by"),
    "no image file": (
        {"images": [{"id": 1, "height": 8, "width": 10}]},
        "image 1: the key 'file_name' is missing",
    ),
    "file name of a number": ({"images": [image(1, file_name=3)]}, "file_name must be a path, found 3"),
    "no id": ({"images": [{"file_name": "a.png"}]}, "image number 1: the key 'id' is missing"),
    "no height": (
        {"images": [{"id": 1, "file_name": "a", "width": 3}]},
        "image 1: the key 'height' is missing",
    ),
    "zero width": (
        {"images": [image(1, width=0)]},
        "image 1: width must be a whole number of pixels from 1, found 0",
    ),
    "broken width": ({"images": [image(1, width=9.5)]}, "found 9.5"),
    "NaN width": ({"images": [image(1, width=math.nan)]}, "found nan"),
    "text width": ({"images": [image(1, width="10")]}, "found '10'"),
    "huge width": ({"images": [image(1, width=10**400)]}, "whole number of pixels"),
    "no categories": ({"categories": []}, "'categories' is empty"),
    "nameless": ({"categories": [{"id": 1}]}, "category number 1: a category needs a name"),
    "ids twice": (
        {"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]},
        "category number 2: the id 1",
    ),
    "names twice": (
        {"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]},
        "the name 'a' is used twice",
    ),
    "not a list": ({"annotations": {"1": {}}}, "'annotations' must be a list of JSON objects"),
    "not objects": ({"images": [1, 2]}, "'images' must be a list of JSON objects"),
}


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_unsound_records_are_named(tmp_path: Path, name: str) -> None:
    changes, message = BAD_RECORDS[name]
    with pytest.raises(DataError) as caught:
        read(tmp_path, **changes)
    assert message in str(caught.value)
    assert str(tmp_path / "train.toy.json") in str(caught.value)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_missing_lists_are_named(tmp_path: Path, key: str) -> None:
    record = content()
    del record[key]
    (tmp_path / "a.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match=rf"a\.json: the key '{key}' is missing, found \["):
        read_coco(tmp_path / "a.json", tmp_path)


FILES = {
    "not JSON": (b'{"images": [],\n "annotations": [}', "not valid JSON: .* at line 2, column"),
    "cut": (json.dumps(content()).encode()[:90], "not valid JSON"),
    "list": (b"[1]", "one JSON object, found list"),
    "empty": (b"", "is empty"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "Git-LFS pointer"),
    "html": (b"<html>", "web page"),
    "latin-1": ('{"images": "bénin"}'.encode("latin-1"), "not UTF-8 text"),
    "deep": (b'{"a": ' + b"[" * 200_000, "not a sound COCO file|not valid JSON"),
    "endless integer": (b'{"images": ' + b"1" * 5000 + b"}", "not a sound COCO file|must be a list|missing"),
}


@pytest.mark.parametrize("kind", FILES)
def test_unsound_files_are_named(tmp_path: Path, kind: str) -> None:
    data, message = FILES[kind]
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read_coco(tmp_path / "a.json", tmp_path)
    assert str(tmp_path / "a.json") in str(caught.value)


def test_missing_file_and_byte_order_mark(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_coco(tmp_path / "a.json", tmp_path)
    (tmp_path / "b.json").write_text("\ufeff" + json.dumps(content()), encoding="utf-8")
    assert len(read_coco(tmp_path / "b.json", tmp_path).images) == 1


def test_paths(tmp_path: Path) -> None:
    root = tmp_path / "data"
    names = ["a/é 1.png", "../other/2.png", str(tmp_path / "abs" / "3.png"), "a/../b/4.png", "x..y.png"]
    records = [image(i, file_name=name) for i, name in enumerate(names)]
    (tmp_path / "a.json").write_text(json.dumps(content(images=records, annotations=[])), encoding="utf-8")
    found = read_coco(tmp_path / "a.json", root)
    expected = [
        root / "a/é 1.png",
        tmp_path / "other/2.png",
        tmp_path / "abs/3.png",
        root / "b/4.png",
        root / "x..y.png",
    ]
    assert [one.path for one in found.images] == expected
    assert [one.file_name for one in found.images] == names
    expected[1].parent.mkdir()
    expected[1].write_bytes(b"x")
    expected[0].mkdir(parents=True)
    assert check_files(found) == [expected[0], *expected[2:]]


def test_reading_twice_gives_the_same(tmp_path: Path) -> None:
    first = read(tmp_path, annotations=[annotation("x"), annotation("x")])
    assert first == read(tmp_path, annotations=[annotation("x"), annotation("x")])


@pytest.mark.shared
def test_sample_of_the_release(shared: Path) -> None:
    folder = shared / "data" / "mmotu_2d_ultrasam_sample"
    found = read_coco(folder / "sample_coco_MMOTU2D.json", folder / "sample_images")
    raw = json.loads((folder / "sample_coco_MMOTU2D.json").read_text())
    objects = [item for one in found.images for item in one.objects]
    assert check_files(found) == []
    assert sorted(item.annotation_id for item in objects) == list(range(1, len(raw["annotations"]) + 1))
    by_id = {str(record["id"]): record for record in raw["annotations"]}
    for item in objects:
        assert item.area == pytest.approx(by_id[str(item.source_id)]["area"], rel=0.02)
