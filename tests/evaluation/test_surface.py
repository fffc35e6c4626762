"""Border distances against brute force, closed forms and MONAI; the rule for empty masks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from ultrasam.errors import DataError
from ultrasam.evaluation.surface import band_width, border, boundary_iou, surface_scores

MASKS = arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14)))


def disc(radius, center=(60, 60), size=(121, 131)):
    y, x = np.mgrid[: size[0], : size[1]]
    return (y - center[0]) ** 2 + (x - center[1]) ** 2 <= radius**2


def square(top, left, side=20, size=(60, 80)):
    mask = np.zeros(size, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def brute_force(mask, truth, spacing, tolerance):
    """HD95, ASSD and NSD from all pairs of border points."""
    cross = ndimage.generate_binary_structure(2, 1)
    points = [np.argwhere(m & ~ndimage.binary_erosion(m, cross)) * spacing for m in (mask, truth)]
    pairs = np.sqrt(((points[0][:, None] - points[1][None]) ** 2).sum(-1))
    forth, back = pairs.min(1), pairs.min(0)
    both = np.concatenate([forth, back])
    return max(np.percentile(forth, 95), np.percentile(back, 95)), both.mean(), (both <= tolerance).mean()


@settings(deadline=None, max_examples=150)
@given(
    MASKS,
    st.integers(0, 2**31),
    st.sampled_from([(1.0, 1.0), (0.3, 0.1), (2.0, 5.0)]),
    st.sampled_from([0.0, 1.0, 2.5]),
)
def test_distances_are_those_of_all_pairs(mask, seed, spacing, tolerance):
    truth = np.random.default_rng(seed).random(mask.shape) < 0.4
    if not mask.any() or not truth.any():
        return
    found = surface_scores(mask, truth, spacing, tolerance)
    expected = brute_force(mask, truth, spacing, tolerance)
    np.testing.assert_allclose((found.hd95, found.assd, found.nsd), expected, rtol=1e-9, atol=1e-12)
    swapped = surface_scores(truth, mask, spacing, tolerance)
    np.testing.assert_allclose((swapped.hd95, swapped.assd, swapped.nsd), expected, rtol=1e-9, atol=1e-12)


@settings(deadline=None)
@given(MASKS)
def test_the_border_is_what_erosion_takes_away(mask):
    eroded = ndimage.binary_erosion(mask, ndimage.generate_binary_structure(2, 1))
    np.testing.assert_array_equal(border(mask), mask & ~eroded)


def test_monai_agrees():
    metrics = pytest.importorskip("monai.metrics", reason="monai is a test dependency: pip install -e '.[test]'")
    import torch

    rng = np.random.default_rng(3)
    for _ in range(5):
        center = rng.uniform(45, 75, 2)
        mask, truth = disc(rng.uniform(10, 35), center), disc(rng.uniform(10, 35), center + rng.uniform(-9, 9, 2))
        spacing = tuple(rng.uniform(0.1, 2, 2))
        found = surface_scores(mask, truth, spacing, tolerance=1.5)
        batch = [torch.from_numpy(m)[None, None] for m in (mask, truth)]
        shared = {"include_background": True, "spacing": list(spacing)}
        assd = metrics.compute_average_surface_distance(*batch, symmetric=True, **shared)
        nsd = metrics.compute_surface_dice(*batch, class_thresholds=[1.5], **shared)
        hd = metrics.compute_hausdorff_distance(*batch, percentile=95, **shared)
        np.testing.assert_allclose((found.assd, found.nsd, found.hd95), [float(v) for v in (assd, nsd, hd)], rtol=1e-5)


def test_shifted_squares():
    found = surface_scores(square(10, 10), square(10, 13))
    # Left and right sides (20 of 76 points each) are 3 apart; of the others 34 of 36 lie on the other square.
    assert found.hd95 == 3
    assert surface_scores(square(10, 10), square(10, 10)) == type(found)(0, 0, 1, 1)
    assert surface_scores(square(10, 10), square(10, 13), tolerance=3).nsd == 1
    rows = surface_scores(square(10, 10), square(30, 10))
    columns = surface_scores(square(10, 10), square(10, 30))
    assert rows.hd95 == columns.hd95 > 0


def test_concentric_discs():
    found = surface_scores(disc(20), disc(30))
    assert found.hd95 == pytest.approx(10, abs=0.8)
    assert found.assd == pytest.approx(10, abs=0.5)
    assert surface_scores(disc(20), disc(30), spacing=(0.5, 0.5), tolerance=1).assd == pytest.approx(5, abs=0.25)


def test_a_ring_has_two_borders():
    ring = disc(30) & ~disc(14)
    found = surface_scores(ring, disc(30), tolerance=1)
    # The filled disc's border is one of the two; the inner circle is 16 away from it.
    inner, outer = int(border(ring).sum() - border(disc(30)).sum()), int(border(disc(30)).sum())
    assert found.nsd == pytest.approx(2 * outer / (2 * outer + inner), abs=1e-9)
    assert found.hd95 == pytest.approx(16, abs=1.5)


def test_one_pixel_and_anisotropic_spacing():
    mask, truth = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    mask[2, 3] = truth[5, 7] = True
    found = surface_scores(mask, truth, spacing=(0.2, 0.05))
    assert found.hd95 == found.assd == pytest.approx(math.hypot(3 * 0.2, 4 * 0.05))


def test_a_distance_equal_to_the_tolerance_is_within_it():
    for spacing in (0.1, 0.3, 0.7):
        found = surface_scores(square(10, 10), square(10, 13), spacing=(spacing, spacing), tolerance=3 * spacing)
        assert found.nsd == 1


def test_empty_masks():
    nothing, full = np.zeros((30, 40), bool), np.ones((30, 40), bool)
    assert all(math.isnan(value) for value in vars(surface_scores(nothing, nothing)).values())
    for pair in ((nothing, full), (full, nothing)):
        found = surface_scores(*pair, spacing=(2.0, 1.0))
        assert found.hd95 == found.assd == pytest.approx(math.hypot(60, 40))
        assert found.nsd == found.boundary_iou == 0
    assert surface_scores(nothing, full, image_size=(300, 400)).hd95 == 500


def test_a_cut_out_gives_the_same():
    mask, truth = disc(20, (50, 60)), disc(25, (55, 66))
    cut = (slice(28, 81), slice(38, 93))
    whole = surface_scores(mask, truth)
    assert (
        surface_scores(np.ascontiguousarray(mask[cut]), np.ascontiguousarray(truth[cut]), image_size=mask.shape)
        == whole
    )


@settings(deadline=None, max_examples=60)
@given(MASKS, st.integers(0, 2**31), st.integers(1, 4))
def test_boundary_iou_is_that_of_repeated_erosion(mask, seed, width):
    truth = np.random.default_rng(seed).random(mask.shape) < 0.6
    bands = []
    for m in (mask, truth):
        inner = ndimage.binary_erosion(m, np.ones((3, 3)), iterations=width)
        bands.append(m & ~inner)
    union = (bands[0] | bands[1]).sum()
    found = boundary_iou(mask, truth, width)
    assert math.isnan(found) if union == 0 else found == (bands[0] & bands[1]).sum() / union


def test_the_band_is_two_percent_of_the_diagonal():
    assert band_width(600, 800) == 20
    assert band_width(10, 10) == 1


@pytest.mark.parametrize("arguments", [{"spacing": (0.0, 1.0)}, {"tolerance": -1.0}, {"spacing": (math.nan, 1.0)}])
def test_impossible_units_are_refused(arguments):
    with pytest.raises(DataError, match="spacing"):
        surface_scores(disc(3), disc(4), **arguments)
    with pytest.raises(DataError, match="size"):
        surface_scores(disc(3), square(1, 1))
