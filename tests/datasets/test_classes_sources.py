"""Classes from COCO files, folders and tables: what is read, in which order, and what is refused."""

import pytest
from labelled_coco import coco_file

from ultrasam.datasets.classes_sources import (
    class_counts,
    labels_from_coco,
    labels_from_folders,
    labels_from_table,
    ordered_classes,
)
from ultrasam.datasets.classes_table import check_part, group_of, part_of, read_table
from ultrasam.errors import ConfigError, DataError


def named(source):
    return [(image.path.name, image.label) for image in source.images]


def test_coco_takes_the_image_record_then_the_objects(tmp_path):
    path = coco_file(tmp_path, [("a.png", "malignant", ["benign"]), ("b.png", None, ["benign", "benign"])])
    source = labels_from_coco(path, tmp_path, "class", "error")
    assert named(source) == [("a.png", "malignant"), ("b.png", "benign")]
    assert source.classes == ["benign", "malignant"]
    assert [image.group for image in source.images] == ["p1", "p2"]


def test_coco_order_of_classes(tmp_path):
    """That of the categories where they name classes, others behind in alphabetical order."""
    path = coco_file(tmp_path, [("a.png", "normal", []), ("b.png", "z", ["z"])], categories=("z", "y"))
    assert labels_from_coco(path, tmp_path, "class", "error").classes == ["z", "y", "normal"]
    path = coco_file(tmp_path, [("a.png", "b", ["lesion"]), ("b.png", "a", ["lesion"])], categories=("lesion",))
    assert labels_from_coco(path, tmp_path, "class", "error").classes == ["a", "b"]


@pytest.mark.parametrize("objects", [[], ["benign", "malignant"]])
def test_coco_images_without_a_class(tmp_path, objects, caplog):
    path = coco_file(tmp_path, [("a.png", "benign", []), ("b.png", None, objects)])
    with pytest.raises(DataError, match=r"1 images have neither 'class'.*first: b\.png"):
        labels_from_coco(path, tmp_path, "class", "error")
    assert named(labels_from_coco(path, tmp_path, "class", "skip")) == [("a.png", "benign")]
    assert "left out 1 of 2 images, which have no class" in caplog.text


def test_folders(tmp_path):
    for name in ("b/2_x.png", "a/1_y.JPG", "a/deep/1_z.png", "a/notes.txt", "empty/.keep"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    source = labels_from_folders(tmp_path, r"^(\d)_")
    assert named(source) == [("1_y.JPG", "a"), ("1_z.png", "a"), ("2_x.png", "b")]
    assert source.classes == ["a", "b", "empty"]
    assert [image.group for image in source.images] == ["1", "1", "2"]
    # Without a pattern, equal names of two classes are two patients.
    assert len({image.group for image in labels_from_folders(tmp_path, None).images}) == 3
    (tmp_path / "stray.png").touch()
    with pytest.raises(DataError, match=r"holds stray\.png beside its class folders"):
        labels_from_folders(tmp_path, None)


def test_folders_that_hold_nothing(tmp_path):
    with pytest.raises(DataError, match="holds no image in a class folder"):
        labels_from_folders(tmp_path, None)
    with pytest.raises(DataError, match="does not exist or is no folder"):
        labels_from_folders(tmp_path / "no", None)


def test_table(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("\ufefffile;class;patient\nx/1.png;b;p\n2.png;a;p\n", encoding="utf-8")
    source = labels_from_table(path, tmp_path, "file", "class", "patient", None)
    assert named(source) == [("1.png", "b"), ("2.png", "a")] and source.classes == ["a", "b"]
    assert {image.group for image in source.images} == {"p"}
    assert source.images[0].path == tmp_path / "x/1.png"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na,b\n", "has the columns .* but 'class' is needed"),
        ("file,class\na,\n", "line 2: 'class' is empty"),
        ("file,class\na,b\na,c\n", "line 3: a stands in line 2 already"),
        ("file,class\na,b,c\n", "line 2: 2 cells were expected"),
        ("file,class\na\n", "line 2: 2 cells were expected"),
        ("file,class\n", "has no lines"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, text, message):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        labels_from_table(path, tmp_path, "file", "class", None, None)


def test_table_that_is_no_text(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00\x00")
    with pytest.raises(DataError, match="is no UTF-8 text"):
        read_table(tmp_path / "t.csv", [])


def test_wanted_classes(tmp_path):
    path = coco_file(tmp_path, [("a.png", "benign", [])])
    source = labels_from_coco(path, tmp_path, "class", "error")
    assert ordered_classes(source, ["x", "benign"], "there") == ["x", "benign"]
    assert class_counts([1, 1], 3) == [0, 2, 0]
    with pytest.raises(ConfigError, match=r"there has images of the class 'benign', which is none of \['x', 'y'\]"):
        ordered_classes(source, ["x", "y"], "there")


def test_groups_from_names():
    assert group_of("012_HC.png", r"^(\d{3})_") == "012"
    assert group_of("a/b.png", None) == "b"
    with pytest.raises(DataError, match="does not match group_pattern"):
        group_of("x.png", r"^(\d)")
    for wrong in (r"(", r"x"):
        with pytest.raises(ConfigError, match="regular expression with one group"):
            group_of("x.png", wrong)


def test_parts_depend_on_the_group_alone():
    groups = [f"p{number}" for number in range(2000)]
    found = [part_of(group, 0.3, 0.1) for group in groups]
    assert [found.count(name) / 2000 for name in ("test", "val", "train")] == pytest.approx([0.3, 0.1, 0.6], abs=0.03)
    # Fixed for good: results on a part must stay comparable.
    assert found[:6] == ["train", "train", "test", "train", "val", "train"]
    assert [part_of(group, 0.3, 0.1, seed=1) for group in groups] != found
    # A larger test part keeps what was in it.
    assert all(part_of(g, 0.4, 0.1) == "test" for g, part in zip(groups, found, strict=True) if part == "test")


def test_parts_that_leave_no_training_data():
    with pytest.raises(ConfigError, match="leave data to train"):
        check_part("train", 0.7, 0.3)
    with pytest.raises(ConfigError, match="part must be one of"):
        check_part("dev", 0.2, 0.1)
