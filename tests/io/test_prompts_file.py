"""Prompts of tables and of COCO JSON, and what is no prompt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ultrasam.errors import DataError
from ultrasam.io.prompts_file import read_prompts


def table(folder: Path, *lines: str, name: str = "p.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def test_rows_of_one_object_are_one_prompt(tmp_path):
    path = table(tmp_path, "file,frame,object,x,y,label,x1,y1,x2,y2,name",
                 "a.png,,1,10,20,1,,,,,lesion", "a.png,,1,11.5,21,0,,,,,", "a.png,,1,,,,1,2,30,40,", "",
                 "a.png,,2,5,5,,,,,,", "sub\\b (1).dcm,3,1,,,,0,0,9,9,", "./a.png,4,1,7,8,neg,1,1,9,9,")  # fmt: skip
    files = read_prompts(path).files
    assert set(files) == {"a.png", "sub/b (1).dcm"}
    first, second = files["a.png"][None]
    assert (first.points, first.labels) == ([(10, 20), (11.5, 21)], [1, 0])
    assert (first.box, first.name) == ((1, 2, 30, 40), "lesion")
    assert (second.points, second.labels, second.box, second.name) == ([(5, 5)], [1], None, "object")
    assert files["sub/b (1).dcm"][3][0].box == (0, 0, 9, 9)
    assert files["a.png"][4][0].to_dict() == {"points": [[7, 8]], "labels": [0], "box": [1, 1, 9, 9]}
    assert first.where == f"{path}, line 2"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_separators_and_marks_of_spreadsheets(tmp_path, separator, encoding):
    lines = [separator.join(line) for line in (("file", "x", "y"), ("ä.png", "1", "2"), ("ä.png", "3", "4"))]
    objects = read_prompts(table(tmp_path, *lines, encoding=encoding)).files["ä.png"][None]
    assert [item.points for item in objects] == [[(1, 2)], [(3, 4)]]  # without numbers a row is an object


@pytest.mark.parametrize(("lines", "words"), [
    ((), "found nothing"),
    (("image,x,y", "a,1,2"), "columns out of file.*found 'image'"),
    (("file,x,y,x", "a,1,2,3"), "each once"),
    (("file,x,y", "a,1"), "line 2: 3 cells were expected, found 2"),
    (("file,x,y", "a,1,zwei"), "line 2: a number was expected in the column y, found 'zwei'"),
    (("file,x,y", "a,1,nan"), "in the column y, found 'nan'"),
    (("file,x,y", "a,1,"), "in the column y, found ''"),
    (("file,x,y", "a,,"), "line 2: a point .* or a box .* found neither"),
    (("file,x,y", ",1,2"), "name of a file was expected"),
    (("file,x,y,label", "a,1,2,maybe"), "found 'maybe'"),
    (("file,frame,x,y", "a,-1,1,2"), "a whole number from 0, found '-1'"),
    (("file,object,x1,y1,x2,y2", "a,1,1,2,3,4", "a,1,1,2,3,5"), "line 3: one box was expected for object '1'"),
])  # fmt: skip
def test_tables_that_are_none(tmp_path, lines, words):
    path = tmp_path / "p.csv"
    path.write_text("\n".join(lines) or "\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"p\.csv.*{words}"):
        read_prompts(path)


def test_other_damage_is_named(tmp_path):
    for content, words in ((b"", "empty"), (b"file,x\n\xff\xfe", "UTF-8"), (b"<html>", "web page"), (b"{", "JSON was"),
                           (b'{"images": []}', "'annotations'"), (b"[1]", "entry 1: a detection"),
                           (b'{"images": 3, "annotations": []}', "a list of objects was expected under 'images'"),
                           (b'{"images": [{"id": 1}], "annotations": []}', "every image needs a file_name"),
                           (b'{"images": [{"id": [1], "file_name": "a"}], "annotations": []}',
                            "an id under")):  # fmt: skip
        path = tmp_path / "p.json"
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"p\.json.*{words}"):
            read_prompts(path)
    with pytest.raises(DataError, match="does not exist"):
        read_prompts(tmp_path / "no.csv")


DOCUMENT = {
    "images": [{"id": 7, "file_name": "a.png", "width": 100, "height": 50},
               {"id": 8, "file_name": "cine.mp4", "frame": 3}, {"id": 9, "file_name": "none.png"}],
    "categories": [{"id": 2, "name": "lesion"}],
    "annotations": [
        {"image_id": 7, "category_id": 2, "bbox": [-5, 10, 30, 100], "score": 0.9},
        {"image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.2},
        {"image_id": 8, "category_id": 5, "bbox": [1, 2, 3, 4]},
    ],
}  # fmt: skip


def saved(folder: Path, document: object, name: str = "d.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_documents_with_boxes(tmp_path):
    found = read_prompts(saved(tmp_path, DOCUMENT), 0.5)
    assert found.left_out == 1 and found.files["none.png"] == {None: []}
    (box,) = found.files["a.png"][None]
    assert box.box == (0, 10, 25, 50) and box.name == "lesion"  # cut at the image
    assert found.files["cine.mp4"][3][0].box == (1, 2, 4, 6) and found.files["cine.mp4"][3][0].name == "object"
    assert len(read_prompts(saved(tmp_path, DOCUMENT)).files["a.png"][None]) == 2


def test_detections_with_and_without_their_document(tmp_path):
    listed = saved(tmp_path, DOCUMENT["annotations"], "results.json")
    with pytest.raises(DataError, match=r"entry 1: the image 7 is not in the list of images.*--prompt-images"):
        read_prompts(listed)
    found = read_prompts(listed, 0.5, saved(tmp_path, DOCUMENT))
    assert found.files["a.png"][None][0].box == (0, 10, 25, 50)
    named = [{"image_id": "b.png", "bbox": [1, 2, 3, 4], "score": 0.5}, {"file_name": "c.png", "bbox": [1, 2, 3, 4]}]
    assert set(read_prompts(saved(tmp_path, named)).files) == {"b.png", "c.png"}


@pytest.mark.parametrize("bbox", [None, [1, 2, 3], [1, 2, 0, 4], [1, 2, 3, -4], [1, 2, "3", 4], [200, 2, 3, 4],
                                  [1, 2, True, 4]])  # fmt: skip
def test_boxes_that_are_none(tmp_path, bbox):
    document = {**DOCUMENT, "annotations": [{"image_id": 7, "bbox": bbox}]}
    with pytest.raises(DataError, match=r"d\.json, entry 1: .*bbox"):
        read_prompts(saved(tmp_path, document))


def test_names_find_their_scans(tmp_path):
    path = table(tmp_path, "file,x,y", "s/a.png,1,1", "b.png,2,2", "twice.png,3,3", "nowhere.png,4,4",
                 "t/twice.png,5,5")  # fmt: skip
    scans = [(Path("x") / name, name) for name in ("s/a.png", "u/b.png", "s/twice.png", "t/twice.png")]
    found, problems = read_prompts(path).of(scans)
    assert {scan.as_posix(): frames[None][0].points[0][0] for scan, frames in found.items()} == {
        "x/s/a.png": 1, "x/u/b.png": 2, "x/t/twice.png": 5}  # fmt: skip
    assert len(problems) == 2
    assert "2 of the scans end with 'twice.png'" in problems[0] and "none of the scans is 'nowhere.png'" in problems[1]
    scans = [(Path(name), name) for name in ("a.png", "cine.mp4")]
    found, problems = read_prompts(saved(tmp_path, DOCUMENT)).of(scans)
    assert problems == []  # an image without boxes need not be there
