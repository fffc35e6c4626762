"""Class-aware average precision against pycocotools, its intervals, and the metric around it."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from pycocotools import mask as rle_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ultrasam.engine.setup import register_all
from ultrasam.errors import ConfigError, DataError
from ultrasam.evaluation.instances import (
    FoundObject,
    ImageRecord,
    class_matches,
    class_precisions,
    instance_intervals,
    instance_metrics,
    unique_records,
)
from ultrasam.geometry.rle import encode_mask, rle_area, rle_box

register_all()

from ultrasam.evaluation.instances_metric import InstanceMetric  # noqa: E402

CLASSES = ("cyst", "tumour", "node")
SIZE = (120, 150)


def ellipse(center, radius):
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return ((y - center[0]) / radius[0]) ** 2 + ((x - center[1]) / radius[1]) ** 2 <= 1


def item(mask, label, score=1.0):
    rle = encode_mask(mask)
    return FoundObject(rle, rle_box(rle), float(rle_area(rle)), label, score)


def record(number, truth=(), found=(), group=None):
    return ImageRecord("mini", group or f"patient {number // 2}", f"{number}.png", number, SIZE, truth, found)


def random_records(seed=0, images=12, classes=3):
    """Truth of several sizes; predictions that are near it, of another class, doubled, or nothing's."""
    rng = np.random.default_rng(seed)
    records = []
    for number in range(images):
        truth, found = [], []
        for _ in range(int(rng.integers(0, 4))):
            center, radius = rng.uniform(0.2, 0.8, 2) * SIZE, rng.uniform(6, 55, 2)
            label = int(rng.integers(classes))
            truth.append(item(ellipse(center, radius), label))
            for _ in range(int(rng.integers(0, 3))):
                moved, shrunk = center + rng.normal(0, 4, 2), radius * rng.uniform(0.7, 1.2, 2)
                given = label if rng.random() < 0.7 else int(rng.integers(classes))
                # Rounded, so that scores repeat.
                found.append(item(ellipse(moved, shrunk), given, round(float(rng.random()), 1)))
        for _ in range(int(rng.integers(0, 3))):
            noise = ellipse(rng.uniform(0.2, 0.8, 2) * SIZE, rng.uniform(6, 30, 2))
            found.append(item(noise, int(rng.integers(classes)), round(float(rng.random()), 1)))
        records.append(record(number, tuple(truth), tuple(found)))
    return records


def official(records, iou_type, classes=CLASSES):
    """pycocotools' numbers: mAP, 50, 75, small, medium, large, and the table of precisions."""
    truth, found = [], []
    for part, rows in (("truth", truth), ("found", found)):
        for image in records:
            for obj in getattr(image, part):
                x1, y1, x2, y2 = obj.box
                rows.append({"id": len(rows) + 1, "image_id": image.image_id, "category_id": obj.label + 1,
                             "segmentation": obj.rle, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": obj.area,
                             "iscrowd": 0, "score": obj.score})  # fmt: skip
    for row in found:
        if iou_type == "bbox":
            del row["segmentation"]
        else:
            del row["bbox"]
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image.image_id, "height": SIZE[0], "width": SIZE[1]} for image in records],
        "annotations": truth, "categories": [{"id": n + 1, "name": name} for n, name in enumerate(classes)],
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@pytest.mark.parametrize("seed", [0, 1])
def test_numbers_are_those_of_pycocotools(seed, iou_type):
    records = random_records(seed)
    expected = official(records, iou_type)
    found = instance_metrics(records, CLASSES, iou_type)
    for name, value in zip(("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l"), expected.stats, strict=False):
        assert found.get(name, -1.0) == pytest.approx(value, abs=1e-9), name
    table = expected.eval["precision"][:, :, :, 0, -1]
    for label, title in enumerate(CLASSES):
        assert found[f"mAP.{title}"] == pytest.approx(table[:, :, label].mean(), abs=1e-9)
        assert found[f"mAP_50.{title}"] == pytest.approx(table[0, :, label].mean(), abs=1e-9)
    assert 0 < found["mAP"] < found["mAP_50"] < 1


def test_a_right_mask_of_a_wrong_class_is_wrong():
    mask = ellipse((60, 60), (20, 30))
    other = ellipse((60, 110), (20, 20))
    truth = (item(mask, 0), item(other, 1))
    right = instance_metrics([record(0, truth, (item(mask, 0, 0.9), item(other, 1, 0.9)))], CLASSES)
    assert right["mAP"] == 1.0 and "mAP.node" not in right, "a class without objects is left out"
    wrong = instance_metrics([record(0, truth, (item(mask, 1, 0.9), item(other, 1, 0.8)))], CLASSES)
    # The tumour is found second: precision 1/2 at every recall; the cyst never.
    assert wrong["mAP.cyst"] == 0.0 and wrong["mAP.tumour"] == pytest.approx(0.5)
    assert wrong["mAP"] == pytest.approx(0.25)


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_matches_of_the_intervals_give_the_same_numbers(iou_type):
    records = random_records(3)
    names = [image.group for image in records]
    expected = instance_metrics(records, CLASSES, iou_type)
    for label, title in enumerate(CLASSES):
        matches = class_matches(records, names, label, iou_type)
        found = class_precisions(matches, np.ones((1, len(matches.objects))))[0]
        assert found.mean() == pytest.approx(expected[f"mAP.{title}"], abs=1e-9)
        assert found[0] == pytest.approx(expected[f"mAP_50.{title}"], abs=1e-9)


def test_resampling_equals_repeating_the_images():
    """A patient drawn twice is as two patients with the same images."""
    records = random_records(4)
    names = [image.group for image in records]
    groups = sorted(set(names))
    weights = np.array([[2.0, 0.0, 1.0, 3.0, 0.0, 1.0]])
    repeated = []
    for group, weight in zip(groups, weights[0], strict=True):
        for copy in range(int(weight)):
            for image in records:
                if image.group == group:
                    number = len(repeated)
                    repeated.append(record(number, image.truth, image.found, f"{group} {copy}"))
    expected = instance_metrics(repeated, CLASSES)
    for label, title in enumerate(CLASSES):
        found = class_precisions(class_matches(records, names, label, "segm"), weights)[0].mean()
        # Equal scores keep the order of the images, which repeating changes.
        assert found == pytest.approx(expected.get(f"mAP.{title}", np.nan), abs=0.02, nan_ok=True)


def test_intervals_hold_the_value_and_shrink():
    few, many = random_records(5, images=12), random_records(5, images=60)
    widths = []
    for records in (few, many):
        value = instance_metrics(records, CLASSES)
        found = instance_intervals(records, CLASSES, resamples=200)
        for name, (low, high) in found.items():
            assert low <= value[name] <= high
        widths.append(found["mAP"][1] - found["mAP"][0])
        assert found == instance_intervals(records, CLASSES, resamples=200)
    assert widths[1] < widths[0]
    assert instance_intervals([record(0, few[0].truth, few[0].found, "one")] * 1, CLASSES) == {}


def test_predictions_beyond_a_hundred_do_not_count():
    mask = ellipse((60, 60), (20, 30))
    noise = item(ellipse((30, 120), (8, 8)), 0, 0.9)
    found = (*[noise] * 100, item(mask, 0, 0.1))
    records = [record(0, (item(mask, 0),), found), record(2, (item(mask, 0),), found[-1:])]
    expected = official(records, "segm", CLASSES[:1]).stats[1]
    assert instance_metrics(records, CLASSES[:1])["mAP_50"] == pytest.approx(expected)


def test_errors():
    with pytest.raises(DataError, match="no true objects in 1 images"):
        instance_metrics([record(0)], CLASSES)
    truth = (item(ellipse((60, 60), (9, 9)), 0),)
    with pytest.raises(DataError, match=r"class 3 and the score 1\.0, expected a class from 0 to 2"):
        instance_metrics([record(0, truth, (item(ellipse((60, 60), (9, 9)), 3),))], CLASSES)
    with pytest.raises(DataError, match="score nan"):
        instance_metrics([record(0, truth, (item(ellipse((60, 60), (9, 9)), 0, float("nan")),))], CLASSES)
    with pytest.raises(ConfigError, match="'keypoints'"):
        instance_metrics([record(0, truth)], CLASSES, "keypoints")
    for arguments in (dict(iou_types="segm"), dict(iou_types=["mask"]), dict(intervals=-1)):
        with pytest.raises(ConfigError, match="InstanceMetric"):
            InstanceMetric(**arguments)


def sample_of(image):
    """An image's record as the detector gives it."""
    masks = [rle_tools.decode(obj.rle).astype(bool) for obj in image.found]
    return {
        "gt_instances": {
            "rles": [obj.rle for obj in image.truth], "labels": torch.tensor([obj.label for obj in image.truth]).long(),
        },
        "pred_instances": {
            "masks": torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, *SIZE, dtype=torch.bool),
            "labels": torch.tensor([obj.label for obj in image.found]).long(),
            "scores": torch.tensor([obj.score for obj in image.found], dtype=torch.float64),
            "bboxes": torch.zeros(len(masks), 4),
        },
        "img_path": image.path, "img_id": image.image_id, "ori_shape": SIZE, "dataset": "mini", "group": image.group,
    }  # fmt: skip


def test_metric_scores_each_image_once_in_any_order(tmp_path):
    records = random_records(0)
    # Of equal scores the first image is the first, so the order is part of the number.
    expected = instance_metrics(unique_records(records), CLASSES)
    logged = []
    for order in (records, [*records[::-1], *records[:3]]):
        metric = InstanceMetric(intervals=50, out_dir=str(tmp_path))
        metric.dataset_meta = {"classes": CLASSES}
        for image in order:
            metric.process(None, [sample_of(image)])
        logged.append(metric.evaluate(len(order)))
    assert logged[0] == logged[1]
    assert logged[0]["coco/segm_mAP"] == pytest.approx(expected["mAP"])
    assert logged[0]["coco/segm_mAP.tumour"] == pytest.approx(expected["mAP.tumour"])
    assert logged[0]["coco/segm_mAP_low"] <= expected["mAP"] <= logged[0]["coco/segm_mAP_high"]
    assert (logged[0]["coco/images"], logged[0]["coco/objects"]) == (12, sum(len(image.truth) for image in records))
    rows = json.loads((tmp_path / "predictions.mini.json").read_text())
    assert len(rows) == sum(len(image.found) for image in records)
    assert {row["category"] for row in rows} <= set(CLASSES) and set(rows[0]) >= {"bbox", "segmentation", "score"}
    assert [image.image_id for image in unique_records(records[::-1])] == sorted(range(12), key=lambda n: f"{n}.png")


def test_metric_needs_classes_and_original_masks():
    image = random_records(0)[1]
    metric = InstanceMetric()
    metric.process(None, [sample_of(image)])
    with pytest.raises(ConfigError, match="does not know the classes"):
        metric.evaluate(1)
    sample = sample_of(image)
    del sample["gt_instances"]["rles"]
    with pytest.raises(DataError, match="use PackInstances"):
        metric.process(None, [sample])
