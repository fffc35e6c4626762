"""RLE against a loop over pixels, polygons against scikit-image, and everything a bad file can hold."""

import copy
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask
from scipy import ndimage
from skimage.draw import polygon2mask

from ultrasam.errors import DataError
from ultrasam.geometry import runs
from ultrasam.geometry.rle import (
    decode_mask,
    decode_segmentation,
    encode_mask,
    measure_rles,
    rle_area,
    rle_box,
)

MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def runs_by_loop(mask: np.ndarray) -> list[int]:
    """Column-major run lengths, background first, one pixel at a time."""
    lengths, value = [0], False
    for x in range(mask.shape[1]):
        for y in range(mask.shape[0]):
            if bool(mask[y, x]) != value:
                lengths.append(0)
                value = not value
            lengths[-1] += 1
    return lengths


def counts_by_loop(lengths: list[int]) -> str:
    """The string of the COCO format, written from its definition."""
    text = ""
    for index, length in enumerate(lengths):
        number = length - lengths[index - 2] if index > 2 else length
        more = True
        while more:
            code = number & 0x1F
            number >>= 5
            more = number != (-1 if code & 0x10 else 0)
            text += chr((code | 0x20 if more else code) + 48)
    return text


def box_by_loop(mask: np.ndarray) -> tuple[float, ...]:
    inside = [(x, y) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x]]
    if not inside:
        return (0.0, 0.0, 0.0, 0.0)
    xs, ys = zip(*inside, strict=True)
    return (min(xs), min(ys), max(xs) + 1, max(ys) + 1)


@given(MASKS)
def test_encoding_is_the_loop_over_pixels_and_comes_back(mask: np.ndarray) -> None:
    rle = encode_mask(mask)
    assert rle == {"size": list(mask.shape), "counts": counts_by_loop(runs_by_loop(mask))}
    np.testing.assert_array_equal(decode_mask(rle), mask)


@given(MASKS)
def test_area_and_box_are_those_of_the_pixels(mask: np.ndarray) -> None:
    rle = encode_mask(mask)
    assert rle_area(rle) == sum(bool(v) for row in mask for v in row)
    assert rle_box(rle) == box_by_loop(mask)


@settings(max_examples=30)
@given(st.lists(MASKS, min_size=1, max_size=6), st.integers(1, 40))
def test_many_masks_are_measured_as_one_by_one(masks: list[np.ndarray], batch: int) -> None:
    before = runs._BATCH_CHARACTERS
    runs._BATCH_CHARACTERS = batch
    try:
        areas, boxes = measure_rles([encode_mask(mask) for mask in masks])
    finally:
        runs._BATCH_CHARACTERS = before
    assert areas.tolist() == [int(mask.sum()) for mask in masks]
    assert [tuple(box) for box in boxes.tolist()] == [box_by_loop(mask) for mask in masks]


def test_long_runs_and_negative_differences_agree_with_pycocotools() -> None:
    mask = np.zeros((3000, 2000), dtype=bool)
    mask[100:2900, 5:1990] = True
    mask[1500, :] = False
    mask[:, 1000] = True
    rle = encode_mask(mask)
    np.testing.assert_array_equal(coco_mask.decode(rle).astype(bool), mask)
    assert rle_area(rle) == int(mask.sum())
    assert rle_box(rle) == (5.0, 0.0, 1990.0, 3000.0)


def test_zero_length_runs_do_not_stretch_the_box() -> None:
    rle = decode_segmentation({"size": [4, 4], "counts": [2, 0, 3, 1, 4, 0, 6]}, 4, 4, where="a")
    assert rle_area(rle) == 1
    assert rle_box(rle) == (1.0, 1.0, 2.0, 2.0)
    assert decode_mask(rle).sum() == 1


@pytest.mark.parametrize("mask", [np.zeros((3, 3)), np.zeros((2, 2, 1), bool), np.zeros((0, 4), bool)])
def test_only_boolean_pictures_are_encoded(mask: np.ndarray) -> None:
    with pytest.raises(DataError, match="boolean array"):
        encode_mask(mask)


@given(MASKS, st.sampled_from(["str", "bytes", "list", "array"]))
def test_every_form_of_rle_decodes_to_the_same_mask(mask: np.ndarray, form: str) -> None:
    height, width = mask.shape
    text = encode_mask(mask)["counts"]
    counts = {
        "str": text,
        "bytes": text.encode(),
        "list": runs_by_loop(mask),
        "array": np.array(runs_by_loop(mask), dtype=np.uint32),
    }[form]
    given_rle = {"size": [height, width], "counts": counts}
    before = copy.deepcopy(given_rle)
    rle = decode_segmentation(given_rle, height, width, where="annotation 1")
    np.testing.assert_array_equal(decode_mask(rle), mask)
    assert isinstance(rle["counts"], str)
    assert str(given_rle) == str(before)


GOOD = encode_mask(np.eye(4, dtype=bool))["counts"]

BAD = {
    "empty list": ([], "empty list"),
    "list of an empty polygon": ([[]], "at least three points"),
    "two points": ([[1, 1, 3, 3]], "at least three points"),
    "pairs": ([[1, 1], [2, 2], [3, 1]], "at least three points"),
    "odd": ([[1, 1, 3, 3, 2, 1, 0]], "odd number of values (7)"),
    "NaN": ([[1, 1, 3, math.nan, 2, 1]], "finite pixels, found nan"),
    "infinity": ([[1, 1, 3, math.inf, 2, 1]], "finite pixels, found inf"),
    "huge integer": ([[1, 1, 3, 10**400, 2, 1]], "finite pixels"),
    "text": ([[1, 1, "3", 3, 2, 1]], "must be numbers, found '3'"),
    "null": ([[1, 1, None, 3, 2, 1]], "must be numbers, found None"),
    "bool": ([[1, 1, True, 3, 2, 1]], "must be numbers, found True"),
    "mixed": ([[1, 1, 3, 3, 2, 1], 4], "mixes polygons and numbers"),
    "outside right": ([[10, 1, 12, 1, 11, 3]], "entirely outside"),
    "outside left": ([[-9, 1, -5, 1, -7, 3]], "entirely outside"),
    "far outside": ([[2e8, 1, 2e8, 2, 2e8 + 5, 2]], "entirely outside"),
    "touches the border only": ([[-2, 0, 0, 2, -2, 4]], "entirely outside"),
    "none": (None, "found NoneType"),
    "path": ("mask.png", "found str 'mask.png'"),
    "number": (3, "found int 3"),
    "no counts": ({"size": [4, 4]}, "must be a string, found NoneType"),
    "no size": ({"counts": GOOD}, "size of [height, width]"),
    "size of three": ({"size": [4, 4, 1], "counts": GOOD}, "size of [height, width]"),
    "size of floats": ({"size": [4.0, 4], "counts": GOOD}, "size of [height, width]"),
    "other size": (
        {"size": [2, 8], "counts": GOOD},
        "has size 2 x 8 (height x width) but its image has 4 x 4",
    ),
    "huge size": ({"size": [2**31, 2**31], "counts": GOOD}, "masks have from 1 to"),
    "list too short": ({"size": [4, 4], "counts": [4, 4, 7]}, "sum to 15"),
    "list with negative": ({"size": [4, 4], "counts": [20, -4]}, "integers from 0"),
    "list with floats": ({"size": [4, 4], "counts": [8.0, 8]}, "integers from 0"),
    "list with bool": ({"size": [4, 4], "counts": [15, True]}, "integers from 0"),
    "list empty": ({"size": [4, 4], "counts": []}, "sum to 0"),
    "string empty": ({"size": [4, 4], "counts": ""}, "string is empty"),
    "string cut": ({"size": [4, 4], "counts": GOOD[:-1]}, "covers"),
    "number unfinished": ({"size": [4, 4], "counts": "0P"}, "middle of a number"),
    "number without end": ({"size": [4, 4], "counts": "P" * 40 + "0"}, "more than 32 bits"),
    "strange character": ({"size": [4, 4], "counts": "04 <"}, "the character ' '"),
    "high character": ({"size": [4, 4], "counts": b"04\xff"}, "the character"),
    "not ASCII": ({"size": [4, 4], "counts": "0\u00e94"}, "not ASCII"),
    "negative run": ({"size": [4, 4], "counts": "O1"}, "a run is negative"),
    "too many pixels": ({"size": [4, 4], "counts": counts_by_loop([0, 17])}, "covers 17 pixels"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_segmentations_are_named(name: str) -> None:
    segmentation, message = BAD[name]
    with pytest.raises(DataError) as caught:
        decode_segmentation(segmentation, 4, 4, where="a.json, annotation 17")
    assert str(caught.value).startswith("a.json, annotation 17: ")
    assert message in str(caught.value)


def test_exchanged_sizes_are_pointed_out() -> None:
    rle = encode_mask(np.ones((2, 8), dtype=bool))
    with pytest.raises(DataError, match="look exchanged"):
        decode_segmentation(rle, 8, 2, where="a")


@settings(max_examples=300)
@given(st.binary(max_size=30) | st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=30))
def test_no_string_gets_past_the_check_to_the_c_code(counts: bytes | str) -> None:
    try:
        mask = decode_mask({"size": [5, 7], "counts": counts})
    except DataError:
        return
    text = counts.decode() if isinstance(counts, bytes) else counts
    rle = encode_mask(mask)
    # What was let through describes exactly this picture, if perhaps with empty runs.
    assert rle_area({"size": [5, 7], "counts": text}) == mask.sum() == rle_area(rle)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_polygons_fill_as_in_scikit_image(seed: int) -> None:
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
    radii = rng.uniform(20, 40, 12)
    xy = np.stack([60 + radii * np.cos(angles), 50 + radii * np.sin(angles)], axis=1)
    mask = decode_mask(decode_segmentation([xy.reshape(-1).tolist()], 100, 120, where="a"))
    # scikit-image takes row, column of pixel centres; COCO counts from the corner of the first pixel.
    truth = polygon2mask((100, 120), xy[:, ::-1] - 0.5)
    assert iou(mask, truth) > 0.93


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_clipping_equals_drawing_on_a_larger_canvas(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width, margin = 40, 60, 80
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radii = rng.uniform(10, 60, 9)
    centre = rng.uniform([0, 0], [width, height])
    xy = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    large = decode_mask(
        decode_segmentation(
            [(xy + margin).reshape(-1).tolist()], height + 2 * margin, width + 2 * margin, where="a"
        )
    )
    truth = large[margin : margin + height, margin : margin + width]
    try:
        mask = decode_mask(decode_segmentation([xy.reshape(-1).tolist()], height, width, where="a"))
    except DataError:
        mask = np.zeros_like(truth)
    # The crossing with the border is rounded to a fifth of a pixel by the rasteriser, which can turn an edge that
    # runs along the border by one pixel; nothing is further off than a neighbour, but for single pixels of spikes.
    square = np.ones((3, 3))
    further = (mask & ~ndimage.binary_dilation(truth, square)) | (truth & ~ndimage.binary_dilation(mask, square))
    assert further.sum() <= 2
    assert (mask != truth).sum() <= 0.02 * truth.sum() + max(height, width) / 2


def test_far_vertices_are_cut_and_not_given_to_the_c_code() -> None:
    """A square whose right half lies 200 million pixels away fills the image from x = 5 on."""
    rle = decode_segmentation([[5, -2e8, 2e8, -2e8, 2e8, 2e8, 5, 2e8]], 8, 10, where="a")
    expected = np.zeros((8, 10), dtype=bool)
    expected[:, 5:] = True
    np.testing.assert_array_equal(decode_mask(rle), expected)


def test_coordinates_on_the_border_keep_the_whole_image() -> None:
    rle = decode_segmentation([[0, 0, 10.0, 0, 10.0, 8.0, 0, 8.0]], 8, 10, where="a")
    assert rle_area(rle) == 80


def test_parts_are_united_and_a_flat_polygon_is_one_part() -> None:
    left, right = [0, 0, 4, 0, 4, 4, 0, 4], [3, 0, 8, 0, 8, 4, 3, 4]
    union = decode_mask(decode_segmentation([left, right], 6, 10, where="a"))
    expected = np.zeros((6, 10), dtype=bool)
    expected[:4, :8] = True
    np.testing.assert_array_equal(union, expected)
    assert decode_segmentation(left, 6, 10, where="a") == decode_segmentation([left], 6, 10, where="a")
    outside = [50, 50, 60, 50, 60, 60]
    assert decode_segmentation([left, outside], 6, 10, where="a") == decode_segmentation(
        [left], 6, 10, where="a"
    )


def test_concave_polygon_cut_by_the_border_leaves_no_bridge() -> None:
    """A comb with its back left of the image: the teeth stay apart."""
    comb = [-5, 0, 6, 0, 6, 2, -2, 2, -2, 5, 6, 5, 6, 7, -5, 7]
    mask = decode_mask(decode_segmentation([comb], 10, 10, where="a"))
    expected = np.zeros((10, 10), dtype=bool)
    expected[0:2, :6] = expected[5:7, :6] = True
    np.testing.assert_array_equal(mask, expected)


def test_empty_rle_is_legal_here() -> None:
    rle = decode_segmentation({"size": [4, 4], "counts": [16]}, 4, 4, where="a")
    assert rle_area(rle) == 0
    assert rle_box(rle) == (0.0, 0.0, 0.0, 0.0)
    assert not decode_mask(rle).any()
