"""The own matching and averaging equal COCO's; weights count like repeated images; intervals are honest."""

import dataclasses

import numpy as np
import pytest

from ultrasam.evaluation.precision_interval import average_precisions, match_objects, precision_intervals
from ultrasam.evaluation.records import ObjectRecord
from ultrasam.evaluation.summary import summarise
from ultrasam.geometry.rle import encode_mask, rle_box

SIZE = (40, 50)


def rectangle(rng):
    mask = np.zeros(SIZE, bool)
    top, left = rng.integers(0, 20, 2)
    height, width = rng.integers(5, 20, 2)
    mask[top : top + height, left : left + width] = True
    return mask


def random_records(seed, images=12):
    """Objects that overlap each other, some predictions missing or on another object, scores with ties."""
    rng = np.random.default_rng(seed)
    records = []
    for image in range(images):
        for number in range(int(rng.integers(1, 5))):
            truth = rectangle(rng)
            guess = np.roll(truth, rng.integers(-3, 4, 2), axis=(0, 1)) if rng.random() < 0.8 else rectangle(rng)
            rle = None if rng.random() < 0.1 else encode_mask(guess)
            records.append(ObjectRecord(
                "set", f"g{image // 2}", f"{image:03d}.png", image, number, 0, encode_mask(truth), rle,
                float(rng.integers(0, 6)) / 5 if rle else 0.0, (0, 0, 0, 0) if rle is None else rle_box(rle), "point",
            ))  # fmt: skip
    return records


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@pytest.mark.parametrize("seed", range(8))
def test_the_point_estimate_is_cocos(seed, iou_type):
    records = random_records(seed)
    matches = match_objects(records, iou_type)
    found = average_precisions(matches, np.ones((1, len(matches.objects))))[0]
    expected = summarise(records, (iou_type,))
    assert found.mean() == pytest.approx(expected[f"{iou_type}_mAP"], abs=1e-9)
    assert found[0] == pytest.approx(expected[f"{iou_type}_mAP_50"], abs=1e-9)
    assert found[5] == pytest.approx(expected[f"{iou_type}_mAP_75"], abs=1e-9)


def test_a_weight_counts_like_repeated_images():
    records = [dataclasses.replace(r, score=r.score + 1e-3 * n) for n, r in enumerate(random_records(3))]
    matches = match_objects(records)
    weights = np.arange(len(matches.objects), dtype=float) % 3
    weights[0] = 2
    repeated = [
        dataclasses.replace(record, image_path=f"{record.image_path}.{copy}")
        for record in records
        for copy in range(int(weights[int(record.group[1:])]))
    ]
    found = average_precisions(matches, weights[None])[0].mean()
    assert found == pytest.approx(summarise(repeated, ("segm",))["segm_mAP"], abs=1e-9)


def test_intervals_hold_the_estimate_and_depend_on_the_seed_alone():
    records = random_records(1, images=30)
    found = precision_intervals(records, resamples=200)
    for name in ("mAP", "mAP_50"):
        assert found[name].low < found[name].mean < found[name].high
        assert found[name].groups == 15
    assert found == precision_intervals(records, resamples=200)
    assert found != precision_intervals(records, resamples=200, seed=1)


def test_no_predictions_give_zero():
    records = [dataclasses.replace(r, mask=None, score=0.0) for r in random_records(0)]
    assert precision_intervals(records, resamples=20)["mAP"].mean == 0


def test_one_group_has_no_interval():
    records = [dataclasses.replace(r, group="a") for r in random_records(0)]
    assert np.isnan(precision_intervals(records, resamples=20)["mAP"].low)
