"""Masks in image files with soft borders, colours, grey levels and outlines, against masks made with numpy."""

from __future__ import annotations

import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import ndimage

from data_prep.mask_files import BinaryMask, ColourMask, GreyMask, OutlineMask, ThresholdMask
from ultrasam.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder for all examples of a property."""
    return tmp_path_factory.mktemp("masks")


def save(path: Path, values: np.ndarray, **options) -> Path:
    Image.fromarray(np.asarray(values)).save(path, **options)
    return path


def disc(height: int, width: int, row: float, column: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.hypot(rows - row, columns - column) <= radius


def overlap(mask: np.ndarray, other: np.ndarray) -> float:
    return float((mask & other).sum() / (mask | other).sum())


@pytest.mark.parametrize("quality", [60, 90])
def test_a_compressed_mask_is_cut_at_the_middle(tmp_path, quality):
    truth = disc(80, 90, 40, 45, 25)
    path = save(tmp_path / "m.jpg", truth.astype(np.uint8) * np.uint8(255), quality=quality)
    values = np.array(Image.open(path))
    assert len(np.unique(values)) > 10
    ((name, mask),) = ThresholdMask(path, "nodule").read(80, 90)
    assert (name, mask.dtype, mask.flags.c_contiguous) == ("nodule", bool, True)
    np.testing.assert_array_equal(mask, values > 127)
    assert overlap(mask, truth) > 0.99
    assert overlap(values > 0, truth) < 0.93


@settings(max_examples=25, deadline=None)
@given(values=arrays(np.uint8, (6, 7)), threshold=st.integers(0, 254))
def test_values_above_the_threshold_are_foreground(folder, values, threshold):
    path = save(folder / "m.png", values)
    ((_, mask),) = ThresholdMask(path, "x", threshold=threshold, soft=1.0).read(6, 7)
    np.testing.assert_array_equal(mask, values > threshold)


def test_an_image_in_place_of_a_mask_is_refused(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    with pytest.raises(DataError, match=r"m\.png: a mask of black and white was expected, found \d\d% of the pixels"):
        ThresholdMask(save(tmp_path / "m.png", grey), "x").read(40, 40)
    deep = np.full((4, 4), 300, np.uint16)
    with pytest.raises(DataError, match="8-bit grey values were expected, found 300"):
        ThresholdMask(save(tmp_path / "d.png", deep), "x").read(4, 4)


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_a_mask_is_turned_clockwise_like_its_image(tmp_path, turn):
    values = np.zeros((4, 6), np.uint8)
    values[0, :2] = 255
    path = save(tmp_path / "m.png", values)
    expected = np.array(Image.fromarray(values).rotate(-90 * turn, expand=True)) > 127
    ((_, mask),) = ThresholdMask(path, "x", turn=turn).read(*expected.shape)
    np.testing.assert_array_equal(mask, expected)


@settings(max_examples=25, deadline=None)
@given(side=st.integers(2, 40), large=st.integers(2, 60), seed=st.integers(0, 99))
def test_resizing_takes_the_nearest_pixel(folder, side, large, seed):
    values = np.random.default_rng(seed).integers(0, 2, (side, side), dtype=np.uint8) * np.uint8(255)
    path = save(folder / "m.png", values)
    ((_, mask),) = ThresholdMask(path, "x", resize=True).read(large, large)
    index = [int(Fraction(2 * place + 1, 2) * Fraction(side, large)) for place in range(large)]
    np.testing.assert_array_equal(mask, values[index][:, index] > 0)


@pytest.mark.parametrize(("size", "resize", "words"), [
    ((30, 40), False, r"mask is 40 x 30 pixels .* image is 80 x 60"),
    ((30, 50), True, r"mask is 50 x 30 pixels .* image is 80 x 60"),
])
def test_masks_that_do_not_fit_are_refused(tmp_path, size, resize, words):
    values = np.zeros((*size, 3), np.uint8)
    values[:5] = 255
    path = save(tmp_path / "m.png", values)
    for source in (ThresholdMask(path, "x", resize=resize), GreyMask(path, {"x": 255}, resize=resize),
                   ColourMask(path, {"x": (255, 255, 255)}, resize=resize)):
        with pytest.raises(DataError, match=words):
            source.read(60, 80)
    with pytest.raises(DataError, match="belong together"):
        OutlineMask(path, "x").read(60, 80)


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def paint(labels: np.ndarray, colours: dict[int, tuple[int, int, int]]) -> np.ndarray:
    pixels = np.zeros((*labels.shape, 3), np.uint8)
    for value, colour in colours.items():
        pixels[labels == value] = colour
    return pixels


@settings(max_examples=25, deadline=None)
@given(labels=arrays(np.uint8, (5, 6), elements=st.integers(0, 3)))
def test_exact_colours_name_categories_in_the_order_of_the_table(folder, labels):
    path = save(folder / "m.png", paint(labels, {1: RED, 2: GREEN, 3: BLUE}))
    found = ColourMask(path, {"c": BLUE, "a": RED, "b": GREEN}).read(5, 6)
    expected = [(name, labels == value) for name, value in (("c", 3), ("a", 1), ("b", 2)) if (labels == value).any()]
    assert [name for name, _ in found] == [name for name, _ in expected]
    for (_, mask), (_, truth) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mask, truth)


def test_unknown_colours_are_listed(tmp_path):
    labels = np.zeros((4, 5), np.uint8)
    labels[1, 1], labels[2, 2:4] = 1, 2
    path = save(tmp_path / "m.png", paint(labels, {1: RED, 2: (254, 1, 0)}))
    with pytest.raises(DataError, match=r"m\.png: the colours .* found also \[\(254, 1, 0\)\] in 2 pixels"):
        ColourMask(path, {"a": RED}).read(4, 5)
    ((_, mask),) = ColourMask(path, {"a": RED}, tolerance=1).read(4, 5)
    np.testing.assert_array_equal(mask, labels > 0)


@pytest.mark.parametrize("background", [((0, 0, 0),), ()])
def test_strays_become_background_whatever_the_table_ends_with(tmp_path, background):
    labels = np.ones((10, 10), np.uint8)
    labels[0, :3] = 2
    path = save(tmp_path / "m.png", paint(labels, {1: RED, 2: (90, 90, 200)}))
    found = ColourMask(path, {"a": RED, "b": GREEN}, background, tolerance=20, strays=0.03).read(10, 10)
    assert [name for name, _ in found] == ["a"]
    np.testing.assert_array_equal(found[0][1], labels == 1)
    with pytest.raises(DataError, match="in 3 pixels"):
        ColourMask(path, {"a": RED, "b": GREEN}, background, tolerance=20, strays=0.029).read(10, 10)


def test_another_background_colour_is_no_category(tmp_path):
    labels = np.ones((4, 4), np.uint8)
    labels[0, 0] = 2
    path = save(tmp_path / "m.png", paint(labels, {1: (255, 255, 255), 2: RED}))
    found = ColourMask(path, {"a": RED}, background=((255, 255, 255),)).read(4, 4)
    assert [(name, int(mask.sum())) for name, mask in found] == [("a", 1)]


def test_compressed_colours_take_the_nearest_of_the_table(tmp_path):
    labels = np.zeros((64, 80), np.uint8)
    labels[disc(64, 80, 30, 25, 16)], labels[disc(64, 80, 32, 58, 12)] = 1, 2
    path = save(tmp_path / "m.jpg", paint(labels, {1: RED, 2: GREEN}), quality=92, subsampling=0)
    found = dict(ColourMask(path, {"a": RED, "b": GREEN}, tolerance=120, strays=0.02).read(64, 80))
    assert found.keys() == {"a", "b"}
    assert overlap(found["a"], labels == 1) > 0.96
    assert overlap(found["b"], labels == 2) > 0.96
    with pytest.raises(DataError, match="check that this is the original mask"):
        ColourMask(path, {"a": RED, "b": GREEN}).read(64, 80)


@settings(max_examples=25, deadline=None)
@given(labels=arrays(np.uint8, (5, 6), elements=st.integers(0, 2)),
       noise=arrays(np.int16, (5, 6), elements=st.integers(-9, 9)))
def test_grey_levels_with_noise_take_the_nearest_level(folder, labels, noise):
    values = np.clip(np.array([0, 85, 170])[labels] + noise, 0, 255).astype(np.uint8)
    path = save(folder / "m.png", values)
    found = dict(GreyMask(path, {"a": 85, "b": 170}).read(5, 6))
    for number, name in enumerate("ab", start=1):
        np.testing.assert_array_equal(found.get(name, np.zeros((5, 6), bool)), labels == number)


def test_too_many_grey_values_in_between_are_listed(tmp_path):
    values = np.zeros((10, 10), np.uint8)
    values[:2] = 128
    path = save(tmp_path / "m.png", values)
    with pytest.raises(DataError, match=r"the grey levels \[85, 170\] on 0 .* found also 128 in 20\.0%"):
        GreyMask(path, {"a": 85, "b": 170}).read(10, 10)
    ((name, mask),) = GreyMask(path, {"a": 85, "b": 170}, strays=0.2).read(10, 10)
    assert (name, int(mask.sum())) == ("b", 20)


def ellipse_distance(height: int, width: int, centre: tuple[float, float], axes: tuple[float, float],
                     degrees: float) -> np.ndarray:
    """Return 0 on the ellipse, below inside and above outside, about in pixels."""
    rows, columns = np.mgrid[:height, :width]
    angle = np.deg2rad(degrees)
    x, y = columns - centre[0], rows - centre[1]
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    scale = np.hypot(u / axes[0], v / axes[1])
    return (scale - 1) * np.hypot(u, v) / np.maximum(scale, 1e-9)


# Inside the image, over one border, over a corner, and over two borders at once.
@pytest.mark.parametrize(("centre", "axes", "degrees"), [
    ((100, 80), (70, 50), 0), ((100, 80), (75, 40), 35), ((20, 80), (70, 50), 20), ((150, 20), (80, 60), -30),
    ((100, 80), (130, 60), 10),
])
@pytest.mark.parametrize("gap", [False, True])
def test_outlines_are_filled_also_when_they_leave_the_image_or_are_broken(tmp_path, centre, axes, degrees, gap):
    distance = ellipse_distance(160, 200, centre, axes, degrees)
    line = np.abs(distance) <= 1.5
    truth = distance <= 1.5
    if gap:
        line[:, 95:110] = False
    path = save(tmp_path / "m.png", line)
    ((name, mask),) = OutlineMask(path, "head").read(160, 200)
    assert (name, mask.dtype) == ("head", bool)
    assert overlap(mask, truth) > 0.985
    closed = ndimage.binary_fill_holes(line)
    if closed.sum() > 2 * line.sum():
        np.testing.assert_array_equal(mask, closed)  # a closed outline is filled exactly


def test_an_empty_outline_file_has_no_mask(tmp_path):
    assert OutlineMask(save(tmp_path / "m.png", np.zeros((20, 20), np.uint8)), "head").read(20, 20) == []


@pytest.mark.parametrize(("name", "words"), [
    ("filled", "the file may hold a filled mask"), ("line", "pixels in a line or a spot"),
    ("slope", "pixels in a line or a spot"), ("dots", "found 5 pixels"), ("square", "the nearest ellipse is"),
])
def test_what_is_not_an_outline_is_refused(tmp_path, name, words):
    line = np.zeros((160, 200), bool)
    if name == "filled":
        line = disc(160, 200, 80, 100, 50)
    elif name == "line":
        line[40, 20:120] = True
    elif name == "slope":
        line[np.arange(100), np.arange(100)] = True
    elif name == "dots":
        line[::40, 7] = True
        line[150, 150] = True
    else:
        line[20:140, 30:170] = True
        line[21:139, 31:169] = False
    path = save(tmp_path / "m.png", line)
    with pytest.raises(DataError, match=words):
        OutlineMask(path, "head").read(160, 200)


def test_mask_sources_name_their_file_and_can_be_sent_to_a_process(tmp_path):
    path = tmp_path / "m.png"
    for source in (BinaryMask(path, "x"), ThresholdMask(path, "x"), ColourMask(path, {"x": RED}),
                   GreyMask(path, {"x": 255}), OutlineMask(path, "x")):
        assert source.paths == (path,)
        assert pickle.loads(pickle.dumps(source)) == source
        with pytest.raises(DataError, match=r"m\.png does not exist"):
            source.read(2, 2)
