"""The metric as MMEngine's evaluator calls it: on data samples, in one or several processes."""

import csv
import json
import logging

import numpy as np
import pytest
import torch
import torch.multiprocessing
from mmdet.registry import METRICS
from mmdet.structures import DetDataSample
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData
from pycocotools.coco import COCO

from ultrasam.errors import ConfigError, DataError
from ultrasam.evaluation.metric import PromptedMaskMetric
from ultrasam.geometry.rle import encode_mask

HEIGHT, WIDTH = 120, 160


def square(x, y=10, side=40):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y : y + side, x : x + side] = True
    return mask


def box_of(mask):
    y, x = np.nonzero(mask)
    return [x.min(), y.min(), x.max() + 1, y.max() + 1] if mask.any() else [0, 0, 0, 0]


def sample_of(image, truths, masks, scores=None, dataset="bus_bra", ids=None):
    """A data sample after prediction, with the fields that the detector gives."""
    sample = DetDataSample(
        metainfo={
            "img_id": image, "img_path": f"data/{dataset}/images/{image}.png", "ori_shape": (HEIGHT, WIDTH),
            "dataset": dataset, "group": f"{dataset}/{image}",
        }
    )  # fmt: skip
    count = len(masks)
    stack = np.array(masks).reshape(count, HEIGHT, WIDTH).astype(bool)
    sample.pred_instances = InstanceData(
        masks=torch.from_numpy(stack),
        scores=torch.tensor(scores if scores is not None else [0.9] * count),
        bboxes=torch.tensor([box_of(m) for m in stack], dtype=torch.float32).reshape(count, 4),
        labels=torch.zeros(count, dtype=torch.long),
    )
    sample.gt_instances = InstanceData(
        rles=[encode_mask(t) for t in truths],
        annotation_ids=ids if ids is not None else [10 * image + i for i in range(len(truths))],
    )
    sample.prompt_instances = InstanceData(kind=["point"] * len(truths))
    return sample


def evaluate(samples, **settings):
    evaluator = Evaluator(PromptedMaskMetric(**settings))
    for sample in samples:
        evaluator.process([sample])
    return evaluator.evaluate(len(samples))


def shifted_samples():
    """Four images of one object, predicted with IoU 1, 30/50, 20/60 and 0, and one image without objects."""
    shifts = [0, 10, 20, 60]
    found = [sample_of(i + 1, [square(20)], [square(20 + s)], [0.9 - 0.1 * i]) for i, s in enumerate(shifts)]
    return [*found, sample_of(9, [], [])]


def test_scores_are_those_counted_by_hand():
    scores = evaluate(shifted_samples())
    ious = [1, 0.6, 1 / 3, 0]
    assert scores["coco/mean_iou"] == pytest.approx(np.mean(ious))
    assert scores["coco/mean_dice"] == pytest.approx((1 + 30 / 40 + 20 / 40 + 0) / 4)
    assert scores["coco/success"] == pytest.approx((10 + 3 + 0 + 0) / 40)
    # Two ranked hits of four objects at .50, .55 and .60 (51 of 101 recalls), one (26) at the other seven.
    expected = (3 * 51 + 7 * 26) / 10 / 101
    for kind in ("segm", "bbox"):
        assert scores[f"coco/{kind}_mAP"] == pytest.approx(expected)
        assert scores[f"coco/{kind}_mAP_50"] == pytest.approx(51 / 101)
        assert scores[f"coco/{kind}_mAP_75"] == pytest.approx(26 / 101)
    assert scores["coco/objects"] == scores["coco/predicted"] == 4
    assert all(isinstance(value, (int, float)) for value in scores.values())


def test_each_dataset_is_scored_when_there_are_several():
    samples = shifted_samples()
    # The same image and annotation ids in another set are other objects.
    samples += [sample_of(1, [square(20)], [square(20)], dataset="busi")]
    scores = evaluate(samples)
    assert scores["coco/busi/segm_mAP"] == scores["coco/busi/mean_dice"] == 1.0
    assert scores["coco/bus_bra/mean_iou"] == pytest.approx((1 + 0.6 + 1 / 3) / 4)
    assert scores["coco/objects"] == 5
    assert "coco/bus_bra/segm_mAP" not in evaluate(shifted_samples())


def test_repeated_samples_and_their_order_do_not_matter():
    samples = shifted_samples()
    for sample in samples[:4]:
        sample.pred_instances.scores[:] = 0.5  # ties, so that AP depends on the order of the images
    expected = evaluate(samples)
    assert evaluate([samples[0], *reversed(samples), samples[2]]) == expected


def test_an_image_may_come_in_parts():
    truths, masks = [square(0), square(60)], [square(0), square(70)]
    whole = evaluate([sample_of(1, truths, masks, ids=[3, 4])])
    parts = [sample_of(1, truths[:1], masks[:1], ids=[3]), sample_of(1, truths[1:], masks[1:], ids=[4])]
    assert evaluate(parts) == whole


def test_repeated_annotation_ids_are_distinct_objects():
    sample = sample_of(1, [square(0), square(60)], [square(0), square(60)], ids=[0, 0])
    scores = evaluate([sample, sample])
    assert scores["coco/objects"] == 2
    assert scores["coco/segm_mAP"] == 1.0


def test_empty_masks():
    empty = square(0, side=0)
    both, missed, invented = (empty, empty), (square(0), empty), (empty, square(0))
    pairs = [both, missed, invented, (square(0), square(0))]
    scores = evaluate([sample_of(i, [t], [m]) for i, (t, m) in enumerate(pairs)])
    assert scores["coco/both_empty"] == 1
    assert scores["coco/objects"] == 3
    assert scores["coco/predicted"] == 2
    assert scores["coco/mean_iou"] == scores["coco/mean_dice"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("masks", [[], [square(0, side=0)]])
def test_nothing_predicted_scores_zero_and_warns(masks, caplog):
    with caplog.at_level(logging.WARNING):
        scores = evaluate([sample_of(1, [square(0)], masks)])
    names = {"mAP", "mAP_50", "mAP_75"}
    assert {scores[f"coco/segm_{name}"] for name in names} == {0.0}
    assert scores["coco/predicted"] == scores["coco/mean_dice"] == scores["coco/success"] == 0
    assert scores["coco/objects"] == 1


def test_no_objects_at_all():
    with pytest.raises(DataError, match="no objects"):
        evaluate([sample_of(1, [], [])])
    with pytest.raises(DataError, match="no objects"):
        evaluate([])


def test_wrong_samples_are_errors_that_name_the_image():
    no_truth = sample_of(1, [square(0)], [square(0)])
    del no_truth.gt_instances
    small = sample_of(1, [square(0)], [square(0)])
    small.pred_instances = InstanceData(masks=torch.ones(1, 32, 32, dtype=torch.bool), scores=torch.ones(1))
    cases = {
        "gt_instances.rles": no_truth,
        "32 x 32": small,
        "2 masks": sample_of(1, [square(0)], [square(0), square(1)]),
        "nan": sample_of(1, [square(0)], [square(0)], [float("nan")]),
    }
    for words, sample in cases.items():
        with pytest.raises(DataError, match=words) as error:
            evaluate([sample])
        assert "data/bus_bra/images/1.png" in str(error.value)


def test_configs_find_it_by_name():
    assert METRICS.module_dict["PromptedMaskMetric"] is PromptedMaskMetric


def test_settings():
    scores = evaluate(shifted_samples(), iou_types=["segm"], prefix="val")
    assert "val/segm_mAP" in scores and "val/bbox_mAP" not in scores
    with pytest.raises(ConfigError, match="mask"):
        PromptedMaskMetric(iou_types=["mask"])


def test_stored_results_are_small():
    metric = PromptedMaskMetric()
    metric.process(None, [sample.to_dict() for sample in shifted_samples()])
    kept = [value for record in metric.results for value in vars(record).values()]
    assert len(metric.results) == 4
    assert {type(value) for value in kept} <= {str, int, float, dict, tuple, type(None)}


def test_files(tmp_path):
    samples = [*shifted_samples(), sample_of(7, [square(20)], [square(25)], dataset="busi")]
    evaluate(samples, out_dir=str(tmp_path / "new"))
    folder = tmp_path / "new"
    assert sorted(p.name for p in folder.iterdir()) == [
        "per_object.csv", "predictions.bus_bra.json", "predictions.busi.json",
    ]  # fmt: skip
    rows = json.loads((folder / "predictions.bus_bra.json").read_text())
    assert [r["image_id"] for r in rows] == [1, 2, 3, 4]
    assert rows[1]["bbox"] == [30, 10, 40, 40]
    images = [{"id": i, "height": HEIGHT, "width": WIDTH} for i in (1, 2, 3, 4)]
    truth = COCO()
    truth.dataset = {"info": {}, "images": images, "categories": []}
    truth.createIndex()
    assert truth.loadRes(rows).annToMask(rows[1]).sum() == 1600
    with (folder / "per_object.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(row["iou"]) for row in table[:4]] == pytest.approx([1, 0.6, 1 / 3, 0])
    assert [table[4][c] for c in ("dataset", "annotation_id", "prompt")] == ["busi", "70", "point"]
    assert [int(table[1][c]) for c in ("truth_area", "mask_area")] == [1600, 1600]
    assert float(table[1]["hd95"]) == 10
    assert table[1]["hd95_mm"] == ""


def _rank(rank, store, answers):
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    samples = shifted_samples()
    # Unequal shares in blocks, the last one filled up with a repeated sample.
    scores = evaluate(samples[:2] if rank == 0 else [*samples[2:], *samples[:1]])
    with pytest.raises(DataError) as error:
        evaluate([])
    answers[rank] = (scores, str(error.value))
    torch.distributed.destroy_process_group()


def test_two_processes_give_what_one_gives_errors_included(tmp_path):
    expected = evaluate(shifted_samples())
    with torch.multiprocessing.Manager() as manager:
        answers = manager.dict()
        torch.multiprocessing.spawn(_rank, (str(tmp_path / "store"), answers), nprocs=2)
        answers = dict(answers)
    assert answers[0] == answers[1]
    assert answers[0][0] == expected
    assert "no objects" in answers[0][1]
