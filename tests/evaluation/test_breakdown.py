"""Scores of every part, against means taken by hand; sizes, images, empty masks; cut-outs change nothing."""

import dataclasses
import math

import numpy as np
import pytest
from test_precision_interval import random_records

from ultrasam.evaluation.breakdown import breakdown
from ultrasam.evaluation.measures import MEASURES, Tolerances, measure, measure_all, size_of
from ultrasam.evaluation.records import ObjectRecord
from ultrasam.evaluation.surface import surface_scores
from ultrasam.geometry.rle import decode_mask, encode_mask, rle_box


def record_of(truth, mask, number=0, **changes):
    rle = None if mask is None else encode_mask(mask)
    values = dict(
        dataset="a", group=f"g{number}", image_path=f"{number}.png", image_id=number, annotation_id=1, repeat=0,
        truth=encode_mask(truth), mask=rle, score=0.5, prompt="point",
        box=(0, 0, 0, 0) if rle is None else rle_box(rle),
    )  # fmt: skip
    return ObjectRecord(**{**values, **changes})


def square(side, shift=0, size=(200, 220)):
    mask = np.zeros(size, bool)
    mask[20 : 20 + side, 30 + shift : 30 + shift + side] = True
    return mask


@pytest.mark.parametrize("spacing", [None, (0.2, 0.1)])
@pytest.mark.parametrize("seed", range(3))
def test_scores_of_the_cut_out_are_those_of_the_whole_image(seed, spacing):
    for record in random_records(seed, images=4):
        record = dataclasses.replace(record, spacing=spacing)
        truth = decode_mask(record.truth)
        mask = np.zeros_like(truth) if record.mask is None else decode_mask(record.mask)
        found, whole = measure(record), surface_scores(mask, truth)
        assert (found.hd95, found.assd, found.nsd, found.boundary_iou) == dataclasses.astuple(whole)
        union = (mask | truth).sum()
        assert found.iou == pytest.approx((mask & truth).sum() / union)
        assert found.dice == pytest.approx(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
        if spacing is None:
            assert math.isnan(found.hd95_mm) and math.isnan(found.nsd_mm)
        else:
            mm = surface_scores(mask, truth, spacing, 1.0)
            np.testing.assert_allclose((found.hd95_mm, found.assd_mm, found.nsd_mm), (mm.hd95, mm.assd, mm.nsd))


def test_every_part_is_the_mean_of_its_objects():
    records = [
        record_of(square(20), square(20, 2), 0),
        record_of(square(60), square(60, 5), 1),
        record_of(square(120), square(120), 1, annotation_id=2),
        record_of(square(20), square(20, 10), 2, dataset="b", application="heart"),
    ]
    measures = measure_all(records)
    found = breakdown(records, measures, resamples=50, precision_resamples=20)
    dice = [m.dice for m in measures]
    assert found["overall"]["dice"]["mean"] == pytest.approx(np.mean(dice))
    assert found["datasets"]["a"]["dice"]["mean"] == pytest.approx(np.mean(dice[:3]))
    assert found["datasets"]["b"]["hd95"]["mean"] == pytest.approx(measures[3].hd95)
    assert found["applications"].keys() == {"heart", "unknown"}
    assert found["sizes"].keys() == {"small", "medium", "large"}
    assert found["sizes"]["small"]["dice"]["mean"] == pytest.approx((dice[0] + dice[3]) / 2)
    assert found["per_image"]["dice"]["mean"] == pytest.approx(np.mean([dice[0], (dice[1] + dice[2]) / 2, dice[3]]))
    assert found["overall"]["counts"] == {
        "objects": 4, "images": 3, "groups": 3, "missed": 0, "truth_empty": 0, "both_empty": 0,
    }  # fmt: skip
    assert "hd95_mm" not in found["overall"]
    assert found["overall"]["segm_mAP"]["mean"] > 0
    assert "segm_mAP" not in found["sizes"]["small"]
    assert 0 <= found["overall"]["dice"]["low"] <= found["overall"]["dice"]["high"] <= 1


def test_empty_masks_follow_the_rule():
    nothing = np.zeros((30, 40), bool)
    full = ~nothing
    records = [
        record_of(nothing, nothing, 0), record_of(full, nothing, 1), record_of(nothing, full, 2),
        record_of(full, None, 3), record_of(full, full, 4),
    ]  # fmt: skip
    found = breakdown(records, measure_all(records), resamples=20, precision_resamples=0)
    counts = found["overall"]["counts"]
    assert (counts["both_empty"], counts["missed"], counts["truth_empty"]) == (1, 2, 1)
    assert found["overall"]["dice"]["mean"] == pytest.approx(1 / 4)
    assert found["overall"]["dice"]["objects"] == 4
    assert found["overall"]["hd95"]["mean"] == pytest.approx(3 * 50 / 4)
    assert size_of(records[0]) == "empty"


def test_tolerances_are_used_and_written_down():
    record = record_of(square(60), square(60, 3), spacing=(1.0, 1.0))
    assert measure(record, Tolerances(pixels=3)).nsd == 1 > measure(record, Tolerances(pixels=1)).nsd
    assert measure(record, Tolerances(millimetres=3)).nsd_mm == 1 > measure(record).nsd_mm
    found = breakdown([record], measure_all([record]), tolerances=Tolerances(3, 2), precision_resamples=0)
    assert (found["rules"]["nsd_tolerance_pixels"], found["rules"]["nsd_tolerance_mm"]) == (3, 2)


def test_every_measure_has_a_name():
    assert MEASURES[:3] == ("dice", "iou", "boundary_iou")
    assert len(MEASURES) == 9
