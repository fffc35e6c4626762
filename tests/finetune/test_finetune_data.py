"""Finding the annotation files of a folder, and writing a configuration as text."""

import json

import pytest

from ultrasam.errors import ConfigError, DataError
from ultrasam.finetune.config_text import Name, Section, config_text, literal
from ultrasam.finetune.data import find_data
from ultrasam.finetune.tasks import MODULES, task_named


def write(path, name="images/a.png"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": [{"file_name": name}]}))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").touch()
    return tmp_path


def test_names_beside_the_images(folder):
    write(folder / "train.json")
    write(folder / "test.json")
    found = find_data(folder)
    assert (found.root, found.train, found.val, found.test) == (
        folder, folder / "train.json", None, folder / "test.json",
    )  # fmt: skip
    assert found.relative(found.train) == "train.json"


def test_a_prepared_set_starts_from_the_folder_of_all_sets(folder):
    place = folder / "bus_bra" / "annotations"
    for split in ("train", "val"):
        write(place / f"{split}.bus_bra.json")
        write(place / f"{split}.bus_bra.agnostic.json")
    found = find_data(folder / "bus_bra")
    assert found.root == folder and found.relative(found.train) == "bus_bra/annotations/train.bus_bra.agnostic.json"
    assert found.val.name == "val.bus_bra.agnostic.json" and found.test is None


def test_images_in_a_folder_of_their_own(folder):
    write(folder / "train.json", "a.png")
    assert find_data(folder).root == folder / "images"


@pytest.mark.parametrize(("names", "content", "message"), [
    ([], None, "holds no train.json"),
    (["train.a.agnostic.json", "train.b.agnostic.json"], None, "more than one file of the split 'train'"),
    (["train.json"], "not json", "is no COCO file with images"), (["train.json"], "{}", "is no COCO file with images"),
    (["train.json"], '{"images": [{"file_name": "b.png"}]}', "the image 'b.png' of .* is neither in"),
])  # fmt: skip
def test_what_is_missing_is_named(folder, names, content, message):
    for name in names:
        write(folder / name)
        if content is not None:
            (folder / name).write_text(content)
    with pytest.raises(DataError, match=message):
        find_data(folder)


def test_values_come_back_from_the_text():
    value = {
        "text": 'a "quoted" \\ back\nslash ü', "none": None, "numbers": [1, 2.5, -1e-6, True], "empty": [], "more": {},
        "long": [{"type": "LoadUltrasound", "number": number} for number in range(6)],
    }  # fmt: skip
    sections = [Section("root", "here"), Section("all", {**value, "root": Name("root")}, "Why.\nAnd more.")]
    text = config_text('Title with "quotes".', sections)
    found = {}
    exec(text, found)
    assert found["all"] == {**value, "root": "here"}
    assert "# Why.\n# And more.\nall = dict(\n" in text and text.isascii()
    assert max(len(line) for line in text.splitlines()) <= 100
    assert literal({"a": 1, "b": "c"}) == 'dict(a=1, b="c")'


def test_tasks_by_name():
    assert all(task_named(name).title for name in MODULES)
    with pytest.raises(ConfigError, match="no task 'detect'; tasks are segment"):
        task_named("detect")
