"""Average precision against pycocotools on the same files, and against cases counted by hand."""

import contextlib
import copy
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ultrasam.errors import ConfigError, DataError
from ultrasam.evaluation.coco import coco_metrics
from ultrasam.geometry.rle import encode_mask, rle_area, rle_box

SIZE = 200
NAMES = {"mAP": 0, "mAP_50": 1, "mAP_75": 2, "mAP_s": 3, "mAP_m": 4, "mAP_l": 5}


def square(x, y, side, size=SIZE):
    mask = np.zeros((size, size), dtype=bool)
    mask[y : y + side, x : x + side] = True
    return encode_mask(mask)


def xywh(rle):
    x1, y1, x2, y2 = rle_box(rle)
    return [x1, y1, x2 - x1, y2 - y1]


def truth_of(number, image, rle):
    return {
        "id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "segmentation": rle,
        "area": rle_area(rle), "bbox": xywh(rle),
    }  # fmt: skip


def found_of(image, rle, score):
    return {"image_id": image, "category_id": 1, "segmentation": rle, "bbox": xywh(rle), "score": score}


def images_of(count, size=SIZE):
    return [{"id": i + 1, "height": size, "width": size} for i in range(count)]


def random_case(seed):
    """Random squares of all three sizes, predictions shifted by up to a third of them, tied scores."""
    rng = np.random.default_rng(seed)
    images, truths, found = images_of(12), [], []
    for image in images:
        for _ in range(int(rng.integers(0, 7))):
            side = int(rng.choice([8, 20, 40, 70, 110]))
            x, y = rng.integers(0, SIZE - side, 2)
            truths.append(truth_of(len(truths) + 1, image["id"], square(x, y, side)))
            shift = rng.integers(-side // 3, side // 3 + 1, 2) // int(rng.integers(1, 5))
            u, v = np.clip([x + shift[0], y + shift[1]], 0, SIZE - side)
            found.append(found_of(image["id"], square(u, v, side), float(rng.integers(0, 20)) / 20))
    return images, truths, found


def pycocotools_metrics(images, truths, found, iou_type, most=100):
    """COCO's own evaluation; its printing of `stats` cuts at 100 objects, so read its precision table."""
    found = copy.deepcopy(found)
    if iou_type == "segm":
        for row in found:
            del row["bbox"]
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = {
            "info": {}, "images": copy.deepcopy(images), "annotations": copy.deepcopy(truths),
            "categories": [{"id": 1, "name": "object"}],
        }  # fmt: skip
        data.createIndex()
        run = COCOeval(data, data.loadRes(found), iou_type)
        run.params.maxDets = [1, 10, most]
        run.evaluate()
        run.accumulate()
        if most == 100:
            run.summarize()
    if most == 100:
        return {name: run.stats[i] for name, i in NAMES.items()}
    return {"mAP": run.eval["precision"][:, :, 0, 0, 2].mean()}


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@pytest.mark.parametrize("seed", range(6))
def test_equals_pycocotools(seed, iou_type):
    images, truths, found = random_case(seed)
    expected = pycocotools_metrics(images, truths, found, iou_type)
    metrics = coco_metrics(images, truths, found, iou_type)
    assert 0.05 < metrics["mAP"] < 0.95
    for name, value in expected.items():
        if value == -1:
            assert name not in metrics
        else:
            assert metrics[name] == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@pytest.mark.parametrize("seed", range(3))
def test_what_was_measured_before_gives_the_same(seed, iou_type):
    images, truths, found = random_case(seed)
    measured = [{**row, "area": rle_area(row["segmentation"])} for row in found]
    again = coco_metrics(images, truths, measured, iou_type, measured=True)
    assert again == coco_metrics(images, truths, found, iou_type)


def test_a_shift_by_a_tenth_is_counted_by_hand():
    # 100-pixel square shifted by 10: IoU 90/110 = 0.818, above .50:.05:.80, seven of ten thresholds.
    metrics = coco_metrics(
        images_of(1), [truth_of(1, 1, square(20, 20, 100))], [found_of(1, square(30, 20, 100), 0.3)]
    )
    assert metrics == pytest.approx({"mAP": 0.7, "mAP_50": 1.0, "mAP_75": 1.0, "mAP_l": 0.7})


def test_a_better_scored_miss_halves_the_precision():
    # Ranked: miss, hit, for two objects: precision 1/2 up to recall 1/2, which are 51 of 101 recall points.
    truths = [truth_of(1, 1, square(0, 0, 40)), truth_of(2, 1, square(100, 100, 40))]
    found = [found_of(1, square(0, 0, 40), 0.4), found_of(1, square(0, 150, 40), 0.9)]
    assert coco_metrics(images_of(1), truths, found)["mAP"] == pytest.approx(0.5 * 51 / 101)


def test_hundred_and_fifty_objects_all_count():
    grid = [(12 * (i % 15), 12 * (i // 15)) for i in range(150)]
    truths = [truth_of(i + 1, 1, square(x, y, 10)) for i, (x, y) in enumerate(grid)]
    found = [found_of(1, t["segmentation"], (i + 1) / 200) for i, t in enumerate(truths)]
    assert coco_metrics(images_of(1), truths, found)["mAP"] == 1.0
    assert coco_metrics(images_of(1), truths, found, "bbox")["mAP"] == 1.0
    assert pycocotools_metrics(images_of(1), truths, found, "segm")["mAP"] < 0.7
    shifted = [found_of(1, square(x + i % 4, y, 10), (i % 7) / 7) for i, (x, y) in enumerate(grid)]
    expected = pycocotools_metrics(images_of(1), truths, shifted, "segm", most=150)
    assert coco_metrics(images_of(1), truths, shifted)["mAP"] == pytest.approx(expected["mAP"], abs=1e-9)


@pytest.mark.parametrize("ids", [[0, 1], [0, 0], [5, 5], ["a", "b"]])
def test_annotation_ids_do_not_matter(ids):
    rles = [square(0, 0, 40), square(100, 100, 40)]
    truths = [truth_of(i, 1, rle) for i, rle in zip(ids, rles, strict=True)]
    assert coco_metrics(images_of(1), truths, [found_of(1, rle, 0.5) for rle in rles])["mAP"] == 1.0


@pytest.mark.parametrize("image_id", [0, "abc", ("set", "path", 3)])
def test_image_ids_may_be_anything(image_id):
    rle = square(3, 3, 50)
    images = [{"id": image_id, "height": SIZE, "width": SIZE}]
    assert coco_metrics(images, [truth_of(1, image_id, rle)], [found_of(image_id, rle, 1.0)])["mAP"] == 1.0


def test_inputs_are_left_as_they_are():
    case = random_case(0)
    before = copy.deepcopy(case)
    coco_metrics(*case)
    assert case == before


def test_no_predictions_score_zero():
    truths = [truth_of(1, 1, square(0, 0, 40)), truth_of(2, 2, square(0, 0, 10))]
    for iou_type in ("segm", "bbox"):
        metrics = coco_metrics(images_of(3), truths, [], iou_type)
        assert metrics == {"mAP": 0.0, "mAP_50": 0.0, "mAP_75": 0.0, "mAP_s": 0.0, "mAP_m": 0.0}


def test_an_empty_mask_is_a_miss_that_breaks_nothing():
    empty = encode_mask(np.zeros((SIZE, SIZE), dtype=bool))
    truths = [truth_of(1, 1, square(0, 0, 40)), truth_of(2, 1, square(100, 100, 40))]
    found = [found_of(1, truths[0]["segmentation"], 0.9), found_of(1, empty, 0.1)]
    assert coco_metrics(images_of(1), truths, found)["mAP"] == pytest.approx(51 / 101)


def test_images_without_objects_change_nothing():
    images, truths, found = random_case(3)
    more = [*images, {"id": 99, "height": 7, "width": 9}]
    assert coco_metrics(more, truths, found) == coco_metrics(images, truths, found)


def test_polygons_and_bytes_are_read_as_well():
    rle = square(10, 10, 30)
    truth = {"image_id": 1, "segmentation": [[10, 10, 40, 10, 40, 40, 10, 40]]}
    found = {"image_id": 1, "segmentation": {**rle, "counts": rle["counts"].encode()}, "score": 0.5}
    assert coco_metrics(images_of(1), [truth], [found])["mAP"] == 1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda images, truths, found: truths.clear(), "no objects"),
        (lambda images, truths, found: images.append(dict(images[0])), "appears 2 times"),
        (lambda images, truths, found: found[0].update(image_id=77), "77"),
        (lambda images, truths, found: found[0].update(score=float("nan")), "nan"),
        (lambda images, truths, found: found[0].update(segmentation=square(0, 0, 5, size=64)), "64"),
        (lambda images, truths, found: found[0].update(segmentation=None), "no mask"),
        (lambda images, truths, found: found[0].update(bbox=[0, 0, float("inf"), 1]), "finite"),
    ],
)
def test_what_cannot_be_scored_is_an_error(change, words):
    case = random_case(1)
    change(*case)
    with pytest.raises(DataError, match=words):
        coco_metrics(*case)


def test_unknown_iou_type():
    with pytest.raises(ConfigError, match="masks"):
        coco_metrics(*random_case(0), iou_type="masks")
