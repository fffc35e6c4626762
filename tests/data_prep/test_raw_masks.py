"""Mask rules against scipy, mask files against exact pixels, and how images are stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from scipy import ndimage

from data_prep.frames import ImageFile
from data_prep.mask_files import BinaryMask, LabelMask
from data_prep.masks import apply_rules, components, fill_holes
from data_prep.processing import Converted, convert_record
from data_prep.records import DatasetInfo, MaskRules, Record
from ultrasam.errors import DataError

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12), elements=st.booleans())


@settings(max_examples=150, deadline=None)
@given(MASKS)
def test_filled_holes_are_those_of_scipy(mask):
    np.testing.assert_array_equal(fill_holes(mask), ndimage.binary_fill_holes(mask))


@settings(max_examples=150, deadline=None)
@given(MASKS)
def test_components_are_those_of_scipy(mask):
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    expected = sorted((labels == label for label in range(1, count + 1)), key=lambda part: int(part.argmax()))
    parts = components(mask)
    assert len(parts) == count
    for part, truth in zip(parts, expected, strict=True):
        np.testing.assert_array_equal(part, truth)


def ring_and_speck() -> np.ndarray:
    mask = np.zeros((10, 12), bool)
    mask[1:6, 1:6] = True
    mask[3, 3] = False
    mask[8, 10] = True
    return mask


@pytest.mark.parametrize(("rules", "areas", "changes"), [
    (MaskRules(), [24, 1], (0, 0)),
    (MaskRules(fill_holes=True, min_area=2), [25], (1, 1)),
    (MaskRules(split_components=False), [25], (0, 0)),
    (MaskRules(min_area=100), [], (0, 2)),
])
def test_rules_count_what_they_change(rules, areas, changes):
    parts, counted = apply_rules(ring_and_speck(), rules)
    assert [int(part.sum()) for part in parts] == areas
    assert (counted["pixels_filled"], counted["components_dropped"]) == changes


def save(path: Path, values: list[list[int]]) -> Path:
    Image.fromarray(np.array(values, np.uint8)).save(path)
    return path


@pytest.mark.parametrize("high", [1, 255])
def test_binary_mask_of_either_foreground_value(tmp_path, high):
    path = save(tmp_path / "m.png", [[0, high], [high, high], [0, 0]])
    ((category, mask),) = BinaryMask(path, "lesion").read(3, 2)
    assert category == "lesion"
    assert mask.tolist() == [[False, True], [True, True], [False, False]]


def test_binary_mask_refuses_other_values_and_sizes(tmp_path):
    path = save(tmp_path / "m.png", [[0, 1], [255, 0]])
    with pytest.raises(DataError, match=r"found the values 0, 1, 255"):
        BinaryMask(path, "lesion").read(2, 2)
    with pytest.raises(DataError, match=r"mask is 2 x 2 pixels .* image is 3 x 2"):
        BinaryMask(path, "lesion").read(2, 3)


def test_label_mask_without_background_keeps_every_label(tmp_path):
    path = save(tmp_path / "m.png", [[2, 5], [5, 5]])
    found = LabelMask(path, {5: "kidney", 2: "liver", 9: "spleen"}).read(2, 2)
    assert [(name, mask.tolist()) for name, mask in found] == [
        ("liver", [[True, False], [False, False]]), ("kidney", [[False, True], [True, True]])]
    with pytest.raises(DataError, match=r"values \[2\] were expected, found also 5"):
        LabelMask(path, {2: "liver"}).read(2, 2)


@pytest.mark.parametrize(("name", "kind", "stored"), [
    ("a.png", "PNG", "x.png"), ("a.JPG", "JPEG", "x.jpg"),
    ("a.bmp", "BMP", "x.png"), ("a.jpg", "PNG", "x.png"),
])
def test_png_and_jpeg_are_copied_and_others_become_png(tmp_path, name, kind, stored):
    images = tmp_path / "images"
    images.mkdir()
    pixels = np.random.default_rng(1).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / name, kind)
    mask = save(tmp_path / "m.png", (pixels[..., 0] > 127).astype(int).tolist())
    info = DatasetInfo("s", "S", "", "", "", "", ("lesion",), "")
    record = Record("x", ImageFile(tmp_path / name), (BinaryMask(mask, "lesion"),), "1")
    done = convert_record(record, info, tmp_path, images)
    assert isinstance(done, Converted)
    assert [path.name for path in images.iterdir()] == [done.file_name] == [stored]
    if stored[1:].lower() == name[1:].lower():
        assert (images / stored).read_bytes() == (tmp_path / name).read_bytes()
    else:
        np.testing.assert_array_equal(np.array(Image.open(images / stored)), pixels)
