"""Simulated prompts: where a click falls, how far a box moves, and that test prompts never vary."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ultrasam.datasets.prompts import PROMPT_MODES, click, drawn_box, jitter_box, simulate_prompt
from ultrasam.errors import ConfigError
from ultrasam.geometry.points import box_of_mask


def ring(size: int = 41) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size // 2
    radius = np.hypot(x, y)
    return (radius <= 18) & (radius >= 12)


def masks(side: int = 24):
    return arrays(bool, st.tuples(st.integers(1, side), st.integers(1, side))).filter(lambda m: m.any())


def pixel(prompt) -> tuple[int, int]:
    """Row and column of the pixel that a click lies in."""
    ((x, y),) = prompt.points
    return math.floor(y), math.floor(x)


@settings(max_examples=100, deadline=None)
@given(masks(), st.integers(0, 2**31))
def test_training_click_lies_in_a_pixel_of_the_mask(mask, seed):
    prompt = simulate_prompt(mask, box_of_mask(mask), "train", np.random.default_rng(seed), point_share=1.0)
    assert prompt.kind == "point" and prompt.box is None
    assert prompt.points.shape == (1, 2) and prompt.points.dtype == np.float32
    assert prompt.point_labels.tolist() == [1] and prompt.point_labels.dtype == np.int64
    assert mask[pixel(prompt)]


def test_training_clicks_are_uniform_over_pixels_and_within_them():
    mask = np.zeros((5, 7), bool)
    mask[1, 2] = mask[3, 1:6] = mask[4, 0] = True
    rng = np.random.default_rng(0)
    box = box_of_mask(mask)
    points = np.concatenate([simulate_prompt(mask, box, "train", rng, 1.0).points for _ in range(3500)])
    cells = np.floor(points).astype(int)
    counts = np.zeros(mask.shape)
    np.add.at(counts, (cells[:, 1], cells[:, 0]), 1)
    assert not counts[~mask].any()
    # Chi-square of 6 degrees of freedom: 22.5 is its 99.9 % point.
    assert ((counts[mask] - 500) ** 2 / 500).sum() < 22.5
    fraction = points - cells
    for axis in range(2):
        tenths = np.histogram(fraction[:, axis], 10, (0, 1))[0]
        assert ((tenths - 350) ** 2 / 350).sum() < 27.9


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_share_of_points(share):
    mask = ring()
    box = box_of_mask(mask)
    count = 2000
    kinds = [simulate_prompt(mask, box, "train", np.random.default_rng(s), share).kind for s in range(count)]
    points = kinds.count("point")
    assert points + kinds.count("box") == count
    assert abs(points - share * count) <= 4 * math.sqrt(count * share * (1 - share))


def test_share_is_one_half_and_jitter_five_percent_by_default():
    mask = np.zeros((300, 500), bool)
    mask[100:200, 150:350] = True
    box = box_of_mask(mask)
    prompts = [simulate_prompt(mask, box, "train", np.random.default_rng(s)) for s in range(1000)]
    boxes = np.array([p.box for p in prompts if p.kind == "box"])
    assert 437 < len(boxes) < 563
    moved = np.abs(boxes - box)
    reach = np.array([200, 100, 200, 100]) * 0.05
    assert (moved <= reach + 1e-4).all() and (moved.max(0) > 0.97 * reach).all()
    # Both signs, at every corner coordinate.
    assert ((boxes < box).mean(0) > 0.4).all() and ((boxes > box).mean(0) > 0.4).all()


@settings(max_examples=200, deadline=None)
@given(masks(), st.floats(0, 3), st.integers(0, 2**31))
def test_jittered_box_stays_in_the_image_and_ordered(mask, share, seed):
    box = box_of_mask(mask)
    moved = jitter_box(box, share, mask.shape, np.random.default_rng(seed))
    height, width = mask.shape
    x1, y1, x2, y2 = moved
    assert moved.dtype == np.float32 and moved.shape == (4,)
    assert 0 <= x1 <= x2 <= width and 0 <= y1 <= y2 <= height
    if share <= 0.5:
        reach = np.array([box[2] - box[0], box[3] - box[1]] * 2) * share
        assert (np.abs(moved - box) <= reach + 1e-4).all()


def test_no_jitter_leaves_the_box():
    box = (3.0, 4.0, 9.0, 8.0)
    assert jitter_box(box, 0.0, (20, 20), np.random.default_rng(0)).tolist() == list(box)


@settings(max_examples=60, deadline=None)
@given(masks(), st.sampled_from(["point", "box", "centroid"]))
def test_test_prompts_depend_on_the_mask_alone(mask, mode):
    box = box_of_mask(mask)
    rng = np.random.default_rng(1)
    before = rng.bit_generator.state
    first = simulate_prompt(mask, box, mode, rng, point_share=0.1, box_jitter=0.9)
    assert rng.bit_generator.state == before
    second = simulate_prompt(mask.copy(order="F"), box, mode, np.random.default_rng(99))
    np.testing.assert_array_equal(first.points, second.points)
    assert first.kind == second.kind == ("box" if mode == "box" else "point")
    if mode == "box":
        assert first.box.tolist() == list(box) and len(first.points) == len(first.point_labels) == 0
    elif mode == "point":
        assert mask[pixel(first)]
    else:
        ys, xs = np.nonzero(mask)
        np.testing.assert_allclose(first.points[0], [xs.mean(), ys.mean()], rtol=1e-6)


def test_deepest_point_of_a_ring_is_inside_and_its_centroid_is_not():
    mask = ring()
    box = box_of_mask(mask)
    rng = np.random.default_rng(0)
    assert mask[pixel(simulate_prompt(mask, box, "point", rng))]
    centroid = simulate_prompt(mask, box, "centroid", rng)
    assert centroid.points.tolist() == [[20, 20]] and not mask[pixel(centroid)]


def test_unknown_mode_is_refused():
    mask = ring()
    with pytest.raises(ConfigError, match="train, point, box, centroid, got 'pont'"):
        simulate_prompt(mask, box_of_mask(mask), "pont", np.random.default_rng(0))
    for mode in PROMPT_MODES:
        simulate_prompt(mask, box_of_mask(mask), mode, np.random.default_rng(0))


def test_prompts_of_people():
    prompt = click((1.5, 2.5))
    assert (prompt.kind, prompt.points.tolist(), prompt.box) == ("point", [[1.5, 2.5]], None)
    box = drawn_box(np.array([1, 2, 3, 4], np.float32))
    assert box.kind == "box" and box.points.shape == (0, 2) and box.point_labels.shape == (0,)
