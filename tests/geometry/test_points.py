"""Clicks on shapes whose answer is known, and against brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ultrasam.errors import PromptError
from ultrasam.geometry.points import box_of_mask, centroid_point, deepest_point, random_point

MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))).filter(lambda mask: mask.any())


def depth_by_loop(mask: np.ndarray) -> np.ndarray:
    """Squared distance of each pixel to the nearest background pixel, the outside counting as background."""
    padded = np.pad(mask, 1)
    background = np.argwhere(~padded)
    depth = np.zeros(padded.shape)
    for y, x in np.argwhere(padded):
        depth[y, x] = ((background - (y, x)) ** 2).sum(axis=1).min()
    return depth[1:-1, 1:-1]


@given(MASKS)
def test_deepest_point_is_the_brute_force_maximum(mask: np.ndarray) -> None:
    x, y = deepest_point(mask)
    depth = depth_by_loop(mask)
    assert mask[y, x]
    assert depth[y, x] == depth.max()


@given(MASKS, st.integers(0, 20), st.integers(0, 20))
def test_deepest_point_moves_with_the_object(mask: np.ndarray, right: int, down: int) -> None:
    x, y = deepest_point(mask)
    moved = np.pad(mask, ((down, 3), (right, 2)))
    assert deepest_point(moved) == (x + right, y + down)


def disc(size: int, cx: float, cy: float, radius: float) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return (x - cx) ** 2 + (y - cy) ** 2 <= radius**2


def test_disc_is_clicked_in_its_centre() -> None:
    assert deepest_point(disc(101, 40, 60, 20)) == (40, 60)


def test_ring_is_clicked_between_its_circles_while_its_centroid_lies_in_the_hole() -> None:
    ring = disc(201, 100, 100, 60) & ~disc(201, 100, 100, 45)
    x, y = deepest_point(ring)
    assert ring[y, x]
    assert abs(np.hypot(x - 100, y - 100) - 52.5) < 1.5
    centre = centroid_point(ring)
    assert centre == pytest.approx((100, 100))
    assert not ring[100, 100]


def test_crescent_is_clicked_inside() -> None:
    crescent = disc(201, 100, 100, 60) & ~disc(201, 120, 100, 55)
    x, y = deepest_point(crescent)
    assert crescent[y, x]
    assert not crescent[tuple(round(v) for v in centroid_point(crescent)[::-1])]


def test_line_is_clicked_in_its_middle() -> None:
    line = np.zeros((9, 21), dtype=bool)
    line[4, 3:16] = True
    assert deepest_point(line) == (9, 4)


def test_single_pixel_in_the_corner() -> None:
    mask = np.zeros((5, 7), dtype=bool)
    mask[4, 6] = True
    assert deepest_point(mask) == (6, 4)
    assert centroid_point(mask) == (6.0, 4.0)
    assert box_of_mask(mask) == (6.0, 4.0, 7.0, 5.0)
    assert random_point(mask, np.random.default_rng(0)) == (6, 4)


def test_two_blobs_give_the_thicker_one() -> None:
    assert deepest_point(disc(100, 20, 20, 8) | disc(100, 70, 60, 12)) == (70, 60)


def test_full_image_counts_its_border_as_background() -> None:
    assert deepest_point(np.ones((11, 31), dtype=bool))[1] == 5
    assert deepest_point(np.ones((11, 11), dtype=bool)) == (5, 5)


@given(MASKS)
def test_box_and_centroid_are_those_of_the_pixels(mask: np.ndarray) -> None:
    pixels = [(x, y) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x]]
    xs, ys = zip(*pixels, strict=True)
    assert box_of_mask(mask) == (min(xs), min(ys), max(xs) + 1, max(ys) + 1)
    assert centroid_point(mask) == pytest.approx((sum(xs) / len(xs), sum(ys) / len(ys)))


def test_random_point_is_uniform_over_the_mask_and_repeats_with_the_seed() -> None:
    mask = np.array([[0, 1, 0], [1, 0, 1]], dtype=bool)
    draws = [random_point(mask, np.random.default_rng(seed)) for seed in range(50)]
    assert draws == [random_point(mask, np.random.default_rng(seed)) for seed in range(50)]
    rng = np.random.default_rng(1)
    counts = {point: 0 for point in [(1, 0), (0, 1), (2, 1)]}
    for _ in range(3000):
        counts[random_point(mask, rng)] += 1
    # Five standard deviations of a binomial of 3000 draws.
    assert all(abs(count - 1000) < 130 for count in counts.values())


@pytest.mark.parametrize("function", [deepest_point, centroid_point, box_of_mask])
def test_empty_and_other_masks_are_refused(function) -> None:
    with pytest.raises(PromptError, match=r"empty mask \(4 x 6\)"):
        function(np.zeros((4, 6), dtype=bool))
    with pytest.raises(PromptError, match="boolean mask"):
        function(np.ones((4, 6), dtype=np.uint8))
    with pytest.raises(PromptError, match="boolean mask"):
        function(np.ones((1, 4, 6), dtype=bool))


def test_random_point_of_an_empty_mask_is_refused() -> None:
    with pytest.raises(PromptError, match="empty mask"):
        random_point(np.zeros((4, 6), dtype=bool), np.random.default_rng(0))
