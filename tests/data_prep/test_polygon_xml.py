"""Polygons from XML, and XML that wants to do something else."""

import pytest

from data_prep.mask_shapes import Polygons
from data_prep.polygon_xml import read_cvat, read_thyroid_marks
from ultrasam.errors import DataError

CVAT = """<annotations><image id="0" name="a.png" width="20" height="20">
<polygon label="cyst" points="2.0,3.0;10.0,3.0;10.0,9.0"/><box label="mass" xtl="1" ytl="2" xbr="5" ybr="7"/>
<tag label="t"/>
</image><image id="1" name="b.png" width="20" height="20"></image></annotations>"""
MARKS = """<case><number>1</number><mark><image>1</image><svg>[{"points": [{"x": 4, "y": 4}, {"x": 12, "y": 4},
{"x": 12, "y": 9}], "annotation": {}, "regionType": "freehand"}]</svg></mark>
<mark><image>2</image><svg></svg></mark></case>"""


def test_cvat(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(CVAT)
    found = read_cvat(path)
    assert found == {
        "a.png": [("cyst", ((2, 3), (10, 3), (10, 9))), ("mass", ((1, 2), (5, 2), (5, 7), (1, 7)))], "b.png": [],
    }  # fmt: skip
    ((name, mask), _) = Polygons(path, tuple(found["a.png"])).read(20, 20)
    assert name == "cyst" and mask[3, 2:11].all() and not mask[:3].any() and mask[9, 10]


def test_thyroid_marks(tmp_path):
    path = tmp_path / "1.xml"
    path.write_text(MARKS)
    assert read_thyroid_marks(path) == {"1": [((4, 4), (12, 4), (12, 9))], "2": []}


@pytest.mark.parametrize(("text", "words"), [
    ("<annotations><image", "readable XML"),
    ("<other/>", "<image>"),
    (CVAT.replace("2.0,3.0", "2.0,x"), "with numbers"),
    (CVAT.replace("polygon", "polyline"), "polyline"),
    (CVAT.replace("b.png", "a.png"), "one name each"),
    ('<!DOCTYPE a [<!ENTITY b "cc"><!ENTITY d "&b;&b;">]><annotations>&d;</annotations>', "without entities"),
    ('<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]><annotations>&f;</annotations>', "without entities"),
])  # fmt: skip
def test_what_is_no_annotation_is_refused(tmp_path, text, words):
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(DataError, match=words) as error:
        read_cvat(path)
    assert str(path) in str(error.value)


def test_a_damaged_mark_is_named(tmp_path):
    path = tmp_path / "1.xml"
    path.write_text(MARKS.replace('"y": 9', '"z": 9'))
    with pytest.raises(DataError, match="image 1"):
        read_thyroid_marks(path)
