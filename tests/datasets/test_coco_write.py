"""Writing COCO files: bytes that never vary, NumPy values, and nothing half-written."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from ultrasam.datasets.coco import read_coco, write_coco
from ultrasam.errors import DataError
from ultrasam.geometry.rle import decode_mask

MASK = np.zeros((8, 10), dtype=bool)
MASK[2:5, 3:9] = True


def collection() -> dict[str, Any]:
    """As pycocotools and NumPy give it: bytes, uint32, float32, arrays."""
    rle = coco_mask.encode(np.asfortranarray(MASK.astype(np.uint8)))
    images = [
        {
            "id": np.int64(2),
            "file_name": Path("s") / "é.png",
            "height": 8,
            "width": np.int32(10),
            "group": "g",
        },
        {"id": 1, "file_name": "s/a.png", "height": 8, "width": 10, "group": "g"},
    ]
    annotations = [
        {
            "id": number,
            "image_id": 1,
            "category_id": 1,
            "segmentation": rle,
            "area": coco_mask.area(rle),
            "bbox": coco_mask.toBbox(rle),
            "iscrowd": np.uint8(0),
            "score": np.float32(0.5),
        }
        for number in (10, 9, 2)
    ]
    categories = [{"id": 1, "name": "läsion"}]
    return {"info": {"year": 2025}, "images": images, "annotations": annotations, "categories": categories}


def test_numpy_values_and_bytes_come_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "train.s.json"
    write_coco(path, collection())
    found = read_coco(path, tmp_path)
    assert [one.file_name for one in found.images] == ["s/a.png", "s/é.png"]
    items = found.images[0].objects
    assert [item.annotation_id for item in items] == [2, 9, 10]
    np.testing.assert_array_equal(decode_mask(items[0].rle), MASK)
    assert items[0].area == 18
    assert items[0].box == (3.0, 2.0, 9.0, 5.0)
    assert found.classes == ["läsion"]


def test_pycocotools_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_coco(tmp_path / "a.json", collection())
    coco = COCO(str(tmp_path / "a.json"))
    np.testing.assert_array_equal(coco.annToMask(coco.anns[9]).astype(bool), MASK)


def test_bytes_do_not_depend_on_the_order_of_records_and_keys(tmp_path: Path) -> None:
    given = collection()
    other = {key: given[key] for key in reversed(given)}
    for key in ("images", "annotations"):
        other[key] = [dict(reversed(record.items())) for record in reversed(given[key])]
    before = copy.deepcopy(given)
    write_coco(tmp_path / "a.json", given)
    write_coco(tmp_path / "b.json", other)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert [record["id"] for record in given["annotations"]] == [
        record["id"] for record in before["annotations"]
    ]


def test_one_record_is_one_line_and_text_is_utf8(tmp_path: Path) -> None:
    write_coco(tmp_path / "a.json", collection())
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "läsion" in text
    assert len([line for line in text.splitlines() if '"image_id"' in line]) == 3
    assert json.loads(text)["info"] == {"year": 2025}


def test_empty_lists(tmp_path: Path) -> None:
    write_coco(tmp_path / "a.json", {"images": [], "annotations": [], "categories": []})
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "images": [],
        "annotations": [],
        "categories": [],
    }


@pytest.mark.parametrize("value", [float("nan"), np.float32("inf"), {1, 2}, object()])
def test_values_that_json_cannot_hold_keep_the_old_file(tmp_path: Path, value: object) -> None:
    path = tmp_path / "a.json"
    write_coco(path, collection())
    before = path.read_bytes()
    broken = collection()
    broken["annotations"][1]["area"] = value
    with pytest.raises(DataError, match=r"a\.json cannot be written as JSON"):
        write_coco(path, broken)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
