"""Dice and IoU against closed forms and pixel counts."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ultrasam.errors import DataError
from ultrasam.evaluation.overlap import dice, dice_of_iou, iou, object_ious, rle_iou
from ultrasam.geometry.rle import encode_mask

MASKS = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
)


def square(x, side, width=100):
    mask = np.zeros((60, width), dtype=bool)
    mask[5 : 5 + side, x : x + side] = True
    return mask


def disc(radius, size=401):
    y, x = np.mgrid[:size, :size] - size // 2
    return x**2 + y**2 <= radius**2


@pytest.mark.parametrize("shift", [0, 1, 10, 39, 40, 55])
def test_shifted_squares(shift):
    a, b = square(3, 40), square(3 + shift, 40)
    common = 40 * max(40 - shift, 0)
    assert dice(a, b) == pytest.approx(2 * common / 3200)
    assert iou(a, b) == pytest.approx(common / (3200 - common))
    assert rle_iou(encode_mask(a), encode_mask(b)) == pytest.approx(common / (3200 - common))


def test_concentric_discs():
    # IoU = (r / R)^2, Dice = 2 r^2 / (r^2 + R^2), up to the pixels of the rim.
    assert iou(disc(100), disc(150)) == pytest.approx(4 / 9, rel=2e-3)
    assert dice(disc(100), disc(150)) == pytest.approx(2 / (1 + 2.25), rel=2e-3)


@settings(max_examples=60, deadline=None)
@given(MASKS)
def test_rles_agree_with_pixels(pair):
    a, b = pair
    union = sum(bool(p or q) for p, q in zip(a.flat, b.flat, strict=True))
    common = sum(bool(p and q) for p, q in zip(a.flat, b.flat, strict=True))
    value = rle_iou(encode_mask(a), encode_mask(b))
    if not union:
        assert math.isnan(value) and math.isnan(iou(a, b)) and math.isnan(dice(a, b))
        return
    assert value == pytest.approx(common / union) == iou(a, b)
    assert dice(a, b) == pytest.approx(dice_of_iou(value))


def test_rule_for_empty_masks():
    empty, full = np.zeros((60, 100), dtype=bool), square(0, 10)
    assert dice(empty, full) == iou(empty, full) == rle_iou(encode_mask(empty), encode_mask(full)) == 0.0
    assert dice(full, empty) == iou(full, empty) == rle_iou(encode_mask(full), encode_mask(empty)) == 0.0
    assert math.isnan(dice(empty, empty)) and math.isnan(iou(empty, empty))


def test_objects_are_compared_by_position():
    a, b = encode_mask(square(0, 10)), encode_mask(square(50, 10))
    assert object_ious([a, b], [a, b]).tolist() == [1.0, 1.0]
    assert object_ious([b, a], [a, b]).tolist() == [0.0, 0.0]
    assert object_ious([], []).shape == (0,)
    with pytest.raises(DataError, match="1 predicted masks for 2 objects"):
        object_ious([a], [a, b])


def test_sizes_must_agree():
    with pytest.raises(DataError, match="original size"):
        dice(square(0, 10), square(0, 10, width=90))
    with pytest.raises(DataError, match="original size"):
        rle_iou(encode_mask(square(0, 10)), encode_mask(square(0, 10, width=90)))
