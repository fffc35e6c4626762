"""Both orders of thresholding and enlarging on the same predictions: masks, scores, files and the page."""

import copy
import csv
import json

import pytest
import torch
from mini_batches import batch_of, small_detector
from mmengine.config import Config
from mmengine.evaluator import Evaluator

from ultrasam.engine import test as test_command
from ultrasam.errors import ConfigError, DataError
from ultrasam.evaluation.compare import compare_folders
from ultrasam.evaluation.metric import PromptedMaskMetric
from ultrasam.evaluation.orders import in_other_order, other_order
from ultrasam.evaluation.page import _mask_orders
from ultrasam.evaluation.records import records_of
from ultrasam.models.postprocess import box_of_masks, other_mask_order


def predicted(**arguments):
    """Samples of two images with three objects, predicted with the same random weights."""
    return small_detector(**arguments).eval().test_step(batch_of(2, 1, prompt="box"))


def scored(samples, **settings):
    """The scores and the metric of some predicted samples."""
    metric = PromptedMaskMetric(**settings)
    evaluator = Evaluator(metric)
    evaluator.process(copy.deepcopy(samples))
    return evaluator.evaluate(len(samples)), metric


@pytest.fixture(scope="module")
def samples():
    """Predictions by configured order, alone and with the other order beside it."""
    return {
        (order, both): predicted(mask_order=order, compare_mask_orders=both)
        for order in ("logits", "released")
        for both in (False, True)
    }


@pytest.mark.parametrize("order", ["logits", "released"])
def test_the_other_masks_are_those_of_the_other_setting(samples, order):
    other = other_mask_order(order)
    assert {order, other} == {"logits", "released"}
    for both, alone, wanted in zip(samples[order, True], samples[order, False], samples[other, False], strict=True):
        found = both.pred_instances
        assert torch.equal(found.masks, alone.pred_instances.masks)
        assert torch.equal(found.other_masks, wanted.pred_instances.masks)
        assert torch.equal(found.other_bboxes, wanted.pred_instances.bboxes)
        assert torch.equal(found.other_bboxes, box_of_masks(found.other_masks))
        assert torch.equal(found.scores, wanted.pred_instances.scores)
        assert both.other_order == other
        assert (found.masks != found.other_masks).any()
        assert "other_masks" not in alone.pred_instances and "other_order" not in alone.metainfo


@pytest.mark.parametrize("order", ["logits", "released"])
def test_scores_of_both_are_those_of_two_tests(samples, order):
    other = other_mask_order(order)
    both, metric = scored(samples[order, True], detail=True)
    alone, wanted = (scored(samples[name, False])[0] for name in (order, other))
    assert metric.prefix == "coco" and both["coco/mean_dice"] == alone["coco/mean_dice"]
    expected = alone | {name.replace("coco/", f"coco/{other}_order/"): value for name, value in wanted.items()}
    assert both == expected and both["coco/mean_dice"] != both[f"coco/{other}_order/mean_dice"]


def test_breakdown_compares_them(samples):
    _, metric = scored(samples["logits", True], detail=True)
    found = metric.evaluation.breakdown["mask_orders"]
    assert (found["configured"], found["other"]) == ("logits", "released")
    _, other = scored(samples["released", False], detail=True)
    assert found["parts"]["overall"] == other.evaluation.breakdown["overall"]
    assert found["parts"]["datasets"] == other.evaluation.breakdown["datasets"]
    for name in ("dice", "hd95", "segm_mAP", "bbox_mAP_50"):
        means = [item.evaluation.breakdown["overall"][name]["mean"] for item in (metric, other)]
        assert found["difference"][name]["difference"] == pytest.approx(means[1] - means[0])
    assert "mask_orders" not in other.evaluation.breakdown and other.other_evaluation is None


def test_page_shows_both(samples):
    _, metric = scored(samples["logits", True], detail=True)
    found = metric.evaluation.breakdown
    page = _mask_orders(found)
    for text in ("<h2>Mask orders</h2>", "threshold, then enlarge", "<td>Dice</td>"):
        assert text in page
    for part in (found, found["mask_orders"]["parts"]):
        assert f"{100 * part['overall']['dice']['mean']:.1f}" in page
    assert _mask_orders(json.loads(json.dumps(found))) == page, "written and read again"
    assert _mask_orders(scored(samples["logits", False], detail=True)[1].evaluation.breakdown) == ""


def test_files_of_the_other_order_can_be_compared(samples, tmp_path):
    scored(samples["logits", True], out_dir=str(tmp_path))
    folder = tmp_path / "released_order"
    assert sorted(p.name for p in folder.iterdir()) == ["per_object.csv", "predictions.mini.json"]
    dice = []
    for path in (tmp_path, folder):
        with (path / "per_object.csv").open(newline="") as stream:
            dice.append([float(row["dice"]) for row in csv.DictReader(stream)])
    assert dice[0] != dice[1]
    change = compare_folders(tmp_path, folder)["dice"]
    assert change.difference == pytest.approx((sum(dice[1]) - sum(dice[0])) / 3)


def test_records_of_models_with_different_orders(samples):
    one, two = (records_of(samples[order, True][0].to_dict()) for order in ("logits", "released"))
    assert other_order(one) == "released" and other_order([]) == ""
    assert other_order(in_other_order(one)) == ""
    with pytest.raises(DataError, match="'logits', 'released'"):
        other_order([*one, *two])
    empty = small_detector(compare_mask_orders=True).eval().test_step(batch_of(0))
    assert records_of(empty[0].to_dict()) == []


def test_option_of_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    leaf = {"type": "PromptedCocoDataset", "ann_file": "test.mini.json"}
    cfg = {
        "model": {"type": "UltraSamDetector"}, "test_dataloader": {"dataset": leaf}, "test_cfg": {"type": "TestLoop"},
        "test_evaluator": {"type": "PromptedMaskMetric"},
    }  # fmt: skip
    Config(cfg).dump(tmp_path / "mini.py")

    def prepared(*arguments):
        return test_command.prepare_config(test_command.parse_arguments(["mini.py", "some.pth", *arguments]))

    cfg = prepared("--both-orders", "--prompt", "centroid")
    assert cfg.model.compare_mask_orders is True and cfg.test_dataloader.dataset.prompt == "centroid"
    assert "compare_mask_orders" not in prepared().model
    with pytest.raises(SystemExit):
        prepared("--prompt", "middle")
    with pytest.raises(ConfigError, match="mask_order"):
        small_detector(mask_order="other")
