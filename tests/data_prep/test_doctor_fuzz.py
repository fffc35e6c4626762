"""Whatever a JSON file holds, the doctor ends with a table or one sentence, and what it writes is sound."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_doctor import HEIGHT, WIDTH, base, rows, run

from ultrasam.datasets.coco import read_coco

NUMBERS = st.integers(-3, 70) | st.integers() | st.floats() | st.sampled_from([2**31, 2**63, 2**100, 10**400, 1e308])
WORDS = st.text(max_size=6) | st.sampled_from(
    ["", "1", "a.png", "b.png", "../a.png", "\ud800", "\0", "b'PQ'", "C:\\a.png", "/", "x" * 300])
LEAVES = st.none() | st.booleans() | NUMBERS | WORDS
KEYS = st.sampled_from(["size", "counts", "id", "x"]) | st.text(max_size=3)
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=9) | st.dictionaries(KEYS, inner, max_size=3),
                    max_leaves=20)
# Values that are nearly right reach further into the code than arbitrary ones.
POLYGONS = st.lists(st.lists(NUMBERS, max_size=9) | st.lists(st.integers(-5, 65), max_size=12), max_size=3)
RUNS = st.fixed_dictionaries({"size": st.sampled_from([[HEIGHT, WIDTH], [WIDTH, HEIGHT], [20, 30], [0, 3], [10**6] * 2])
                              | JSON, "counts": st.text("0123456789PQnoab`~", max_size=12)
                              | st.lists(st.integers(0, 2400), max_size=5) | JSON})
VALUES = JSON | POLYGONS | RUNS | st.lists(NUMBERS, min_size=4, max_size=4)
KEYS_OF = {"images": ("id", "file_name", "width", "height", "extra"), "categories": ("id", "name", "supercategory"),
           "annotations": ("id", "image_id", "category_id", "segmentation", "bbox", "area", "iscrowd", "x")}
FIELDS = [(kind, key) for kind, keys in KEYS_OF.items() for key in keys]


def examine(document: object) -> None:
    """Run the doctor with and without repair on a document and three images."""
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()) as printed:
        folder = Path(name)
        for letter in "abc":
            Image.new("L", (WIDTH, HEIGHT)).save(folder / f"{letter}.png")
        path = folder / "x.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        status = run(path, "--fix", folder / "out", "--boxes-to-masks")
        output = printed.getvalue()
        output.encode("utf-8")
        lines = output.splitlines()
        if status == 2:
            assert len(lines) == 1 and lines[0].startswith("error: ")
            assert not (folder / "out").exists()
            return
        if not (folder / "out").exists():
            assert status == 1 and lines[-1].startswith("nothing was written")
            return
        assert bool(rows(output)) == (not lines[-1].startswith("nothing needs repair"))
        assert status == any(left != "-" for _, _, left in rows(output).values())
        warned: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: warned.append(record.getMessage())
        logging.getLogger("ultrasam").addHandler(handler)
        try:
            collection = read_coco(folder / "out/annotations.json", folder / "out")
        finally:
            logging.getLogger("ultrasam").removeHandler(handler)
        assert not warned
        assert all(image.path.is_file() for image in collection.images)
        printed.seek(0)
        printed.truncate()
        assert run(folder / "out") == 0, printed.getvalue()


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(FIELDS), st.integers(0, 1), VALUES), min_size=1, max_size=4))
def test_any_value_in_any_field(changes):
    document = base()
    for (kind, key), position, value in changes:
        document[kind][position][key] = value
    examine(document)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(["images", "annotations", "categories", "info"]), JSON,
       st.sampled_from(["whole", "item", "nested"]))
def test_any_value_in_place_of_a_record_or_list(kind, value, how):
    document = base()
    if how == "whole":
        document[kind] = value
    elif how == "item" and kind != "info":
        document[kind].insert(1, value)
    else:
        for _ in range(60):
            value = [value]
        document["info"] = value
        document["images"][0]["note"] = value
        document["annotations"][0]["segmentation"] = value
    examine(document)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(JSON)
def test_any_value_in_place_of_the_document(value):
    examine(value)
