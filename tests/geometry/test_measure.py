"""Measures of masks against closed forms, scikit-image, and brute force over all points of the border."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.measure import find_contours, perimeter_crofton, regionprops

from ultrasam.errors import DataError
from ultrasam.geometry.measure import measure


def ellipse(size, centre, radii, degrees, spacing=(1.0, 1.0)):
    """Return the mask of an ellipse with centre (x, y) and radii in units of the spacing (rows, columns)."""
    rows, columns = np.mgrid[:size[0], :size[1]]
    x, y = columns * spacing[1] - centre[0], rows * spacing[0] - centre[1]
    turn = math.radians(degrees)
    u, v = x * math.cos(turn) + y * math.sin(turn), -x * math.sin(turn) + y * math.cos(turn)
    return (u / radii[0]) ** 2 + (v / radii[1]) ** 2 <= 1


def brute_force(mask, spacing):
    """Return both diameters from all pairs of points of the border, and of its hull by many lines across."""
    points = np.concatenate([np.asarray(line) for line in find_contours(np.pad(mask, 1).astype(float), 0.5)]) - 1
    points = points * spacing
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    longest = distances.max()
    shortest = []
    # Where several directions are equally long, the short diameter may be that of any.
    for one, other in np.argwhere(distances >= longest - 1e-9):
        along = (points[other] - points[one]) / longest
        u, v = points @ along, points @ np.array([-along[1], along[0]])
        order = [np.argsort(u)]
        low, high = hull_chain(u[order[0]], v[order[0]], -1), hull_chain(u[order[0]], v[order[0]], 1)
        places = np.unique(u)
        shortest.append((np.interp(places, *high) - np.interp(places, *low)).max())
    return longest, shortest


def hull_chain(u, v, side):
    """Upper (1) or lower (-1) convex chain of sorted points by the monotone-chain method."""
    chain = []
    for point in zip(u, side * v, strict=True):
        if chain and abs(point[0] - chain[-1][0]) < 1e-12:
            if point[1] <= chain[-1][1]:
                continue
            chain.pop()
        while len(chain) > 1 and (chain[-1][0] - chain[-2][0]) * (point[1] - chain[-2][1]) >= (
                chain[-1][1] - chain[-2][1]) * (point[0] - chain[-2][0]):
            chain.pop()
        chain.append(point)
    found = np.array(chain)
    return found[:, 0], side * found[:, 1]


@pytest.mark.parametrize("radius", [10, 25.5, 80])
def test_discs(radius):
    found = measure(ellipse((200, 220), (110, 97), (radius, radius), 0), (0.1, 0.1))
    assert found.area_px == pytest.approx(math.pi * radius**2, rel=0.02)
    assert found.area_mm2 == pytest.approx(found.area_px * 0.01)
    assert found.long_px == pytest.approx(2 * radius, abs=1.1)
    assert found.short_px == pytest.approx(2 * radius, abs=1.1)
    assert found.long_mm == pytest.approx(0.1 * found.long_px) and found.short_mm == pytest.approx(0.1 * found.short_px)
    assert found.perimeter_px == pytest.approx(2 * math.pi * radius, rel=0.01, abs=3)
    assert found.centroid == pytest.approx((110, 97), abs=1e-6)
    x1, y1, x2, y2 = found.box
    assert (x1 + x2 - 1, y1 + y2 - 1) == (220, 194) and x2 - x1 == 2 * math.floor(radius) + 1


@pytest.mark.parametrize("degrees", [0, 17, 45, 90, 133])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 0.25), (0.2, 0.7)])
def test_turned_ellipses_in_millimetres(degrees, spacing):
    size = (round(180 / spacing[0]), round(180 / spacing[1]))
    mask = ellipse(size, (90, 90), (70, 30), degrees, spacing)
    found = measure(mask, spacing)
    assert found.area_mm2 == pytest.approx(math.pi * 70 * 30, rel=0.01)
    assert found.long_mm == pytest.approx(140, abs=1.5 * max(spacing))
    # Where the ends of the long diameter are a pixel off, its direction is too.
    assert found.short_mm == pytest.approx(60, abs=2 * max(spacing))
    h = ((70 - 30) / (70 + 30)) ** 2
    ramanujan = math.pi * 100 * (1 + 3 * h / (10 + math.sqrt(4 - 3 * h)))
    # Four directions are few where pixels are far from square.
    assert found.perimeter_mm == pytest.approx(ramanujan, rel=0.025 if spacing[0] == spacing[1] else 0.09)
    (ax, ay), (bx, by) = found.long_ends
    assert math.hypot((bx - ax) * spacing[1], (by - ay) * spacing[0]) == pytest.approx(found.long_mm)
    turned = math.degrees(math.atan2((by - ay) * spacing[0], (bx - ax) * spacing[1])) % 180
    assert min(abs(turned - degrees), 180 - abs(turned - degrees)) < 4


def test_rectangles_and_single_pixels():
    mask = np.zeros((40, 60), bool)
    mask[5:25, 10:50] = True
    found = measure(mask, (2.0, 1.0))
    assert (found.area_px, found.area_mm2, found.box) == (800, 1600.0, (10, 5, 50, 25))
    assert found.centroid == (29.5, 14.5)
    assert found.long_px == pytest.approx(math.hypot(40, 19))
    assert found.long_mm == pytest.approx(math.hypot(39, 40))  # the corners' cut is on the other side in mm
    one = np.zeros((3, 3), bool)
    one[1, 2] = True
    found = measure(one, (0.5, 0.5))
    assert (found.area_px, found.long_px, found.short_px) == (1, 1.0, 1.0)
    assert (found.long_mm, found.box, found.centroid) == (0.5, (2, 1, 3, 2), (2.0, 1.0))


def test_a_thin_bar_is_as_wide_as_it_is():
    mask = np.zeros((20, 120), bool)
    mask[8:11, 10:110] = True
    found = measure(mask)
    assert found.long_px == pytest.approx(100, abs=0.1) and found.short_px == pytest.approx(3, abs=0.1)


@settings(max_examples=40, deadline=None)
@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)),
       st.sampled_from([(1.0, 1.0), (0.5, 0.25), (0.3, 1.1)]))
def test_diameters_of_any_mask(mask, spacing):
    found = measure(mask, spacing)
    assert found.area_px == mask.sum()
    if not mask.any():
        return
    longest, shortest = brute_force(mask, spacing)
    assert found.long_mm == pytest.approx(longest)
    assert min(abs(found.short_mm - value) for value in shortest) < 1e-9
    longest, shortest = brute_force(mask, (1.0, 1.0))
    assert found.long_px == pytest.approx(longest)
    assert min(abs(found.short_px - value) for value in shortest) < 1e-9
    properties = regionprops(mask.astype(np.uint8))[0]
    y1, x1, y2, x2 = properties.bbox
    assert found.box == (x1, y1, x2, y2)
    assert found.centroid == pytest.approx(properties.centroid[::-1])
    assert found.perimeter_px == pytest.approx(perimeter_crofton(mask, directions=4))


def test_an_empty_mask_measures_nothing():
    found = measure(np.zeros((4, 5), bool), (0.1, 0.1))
    assert (found.area_px, found.area_mm2, found.long_px, found.long_mm, found.perimeter_mm) == (0, 0.0, 0.0, 0.0, 0.0)
    assert found.centroid is None and found.long_ends is None and found.box == (0, 0, 0, 0)
    assert measure(np.zeros((4, 5), bool)).area_mm2 is None


def test_millimetres_are_never_made_up():
    found = measure(np.ones((4, 5), bool))
    assert [found.area_mm2, found.long_mm, found.short_mm, found.perimeter_mm] == [None] * 4
    assert json.loads(json.dumps(found.to_dict()))["box"] == [0, 0, 5, 4]


@pytest.mark.parametrize("spacing", [(0.0, 1.0), (1.0, math.nan), (1.0,), (1.0, math.inf)])
def test_a_spacing_that_is_none_is_refused(spacing):
    with pytest.raises(DataError, match="a spacing is two positive numbers"):
        measure(np.ones((2, 2), bool), spacing)


def test_what_is_no_mask_is_refused():
    with pytest.raises(DataError, match=r"boolean array \(height, width\), found uint8 \(2, 2\)"):
        measure(np.ones((2, 2), np.uint8))
