"""Masks from numbers: polygons against skimage and pycocotools, COCO shapes, label volumes."""

from __future__ import annotations

import pickle
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from skimage.draw import line, polygon

from data_prep.mask_shapes import CocoShape, Polygons, VolumeLabels
from ultrasam.errors import DataError

PATH = Path("labels.json")


def fill(vertices, height: int, width: int, *, coco: bool = False) -> np.ndarray:
    ((name, mask),) = Polygons(PATH, (("x", tuple(vertices)),), coco=coco).read(height, width)
    assert (name, mask.dtype, mask.shape) == ("x", bool, (height, width))
    return mask


@st.composite
def stars(draw) -> list[tuple[int, int]]:
    """Draw polygons without crossings that may leave a 40 x 30 image, as vertices at growing angles."""
    count = draw(st.integers(3, 9))
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    radii = draw(st.lists(st.integers(4, 28), min_size=count, max_size=count))
    x, y = draw(st.integers(-5, 45)), draw(st.integers(-5, 35))
    return [(int(x + r * np.cos(a)), int(y + r * np.sin(a))) for r, a in zip(radii, angles, strict=True)]


def outside(vertices) -> bool:
    x, y = np.array(vertices).T
    return bool(x.max() < 0 or y.max() < 0 or x.min() > 40 or y.min() > 30)


@settings(max_examples=120, deadline=None)
@given(stars())
def test_the_fill_is_skimages_polygon_with_its_border(vertices):
    if outside(vertices):
        with pytest.raises(DataError, match="a polygon inside the 40 x 30 image was expected"):
            fill(vertices, 30, 40)
        return
    mask = fill(vertices, 30, 40)
    big = np.zeros((130, 140), bool)
    x, y = np.array(vertices).T + 50
    big[polygon(y, x, big.shape)] = True
    inside = big[50:80, 50:90].copy()
    for start, end in zip(zip(y, x, strict=True), zip(np.roll(y, -1), np.roll(x, -1), strict=True), strict=True):
        big[line(*start, *end)] = True
    with_border = big[50:80, 50:90]
    assert not (inside & ~mask).any()
    # The two draw a slanted line with steps at other places, at most one pixel apart.
    near = np.logical_or.reduce([big[49 + i:79 + i, 49 + j:89 + j] for i in range(3) for j in range(3)])
    assert not (mask & ~near).any()
    assert (mask ^ with_border).sum() <= 0.2 * len(vertices) * 30


@settings(max_examples=80, deadline=None)
@given(stars(), st.floats(-0.49, 0.49))
def test_as_coco_the_fill_is_that_of_pycocotools(vertices, shift):
    moved = [(x + shift, y - shift) for x, y in vertices]
    if outside(moved):
        return
    inside = [(min(max(x, 0), 40), min(max(y, 0), 30)) for x, y in moved]
    flat = [float(value) for vertex in inside for value in vertex]
    truth = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([flat], 30, 40))).astype(bool)
    np.testing.assert_array_equal(fill(inside, 30, 40, coco=True), truth)


def test_a_rectangle_is_filled_with_its_border_by_annotation_tools_and_half_open_by_coco():
    corners = [(2, 1), (6, 1), (6, 4), (2, 4)]
    expected = np.zeros((8, 9), bool)
    expected[1:5, 2:7] = True
    np.testing.assert_array_equal(fill(corners, 8, 9), expected)
    np.testing.assert_array_equal(fill([(x + 0.4, y - 0.4) for x, y in corners], 8, 9), expected)
    half_open = np.zeros((8, 9), bool)
    half_open[1:4, 2:6] = True
    np.testing.assert_array_equal(fill(corners, 8, 9, coco=True), half_open)


@pytest.mark.parametrize("far", [500, 10_000, 2e8])
def test_an_edge_keeps_its_slope_however_far_it_leaves_the_image(far):
    mask = fill([(0, 0), (far, 50), (0, 100)], 101, 100)
    rows, columns = np.mgrid[:101, :100]
    reach = np.where(rows <= 50, rows, 100 - rows) * (far / 50)
    assert not (mask & (columns > reach + far / 50 + 1)).any()
    assert not (~mask & (columns <= reach - 1)).any()


def test_polygons_are_objects_of_their_own_in_their_order():
    squares = tuple((name, ((x, 0), (x + 2, 0), (x + 2, 2), (x, 2))) for name, x in (("b", 5), ("a", 0), ("b", 1)))
    found = Polygons(PATH, squares).read(4, 9)
    assert [name for name, _ in found] == ["b", "a", "b"]
    assert [int(np.flatnonzero(mask.any(axis=0))[0]) for _, mask in found] == [5, 0, 1]


@pytest.mark.parametrize(("vertices", "words"), [
    ((), "three finite vertices was expected, found 0"),
    (((1, 1), (3, 3)), "three finite vertices was expected, found 2"),
    (((1, 1), (3, 3), (np.nan, 2)), "three finite vertices"),
    (((1, 1), (3, 3), (np.inf, 2)), "three finite vertices"),
    (((50, 1), (60, 3), (55, 9)), "found x from 50 to 60, y from 1 to 9; the annotation may belong to another image"),
    (((-9, 1), (-2, 3), (-1, 9)), "found x from -9 to -1"),
])
@pytest.mark.parametrize("coco", [False, True])
def test_impossible_polygons_are_named(vertices, words, coco):
    with pytest.raises(DataError, match=rf"labels\.json: case 7: .*{words}"):
        Polygons(PATH, (("x", vertices),), where="case 7", coco=coco).read(30, 40)


def test_a_polygon_over_the_border_is_cut_off():
    mask = fill([(-5, -5), (3, -5), (3, 3), (-5, 3)], 6, 7)
    expected = np.zeros((6, 7), bool)
    expected[:4, :4] = True
    np.testing.assert_array_equal(mask, expected)


TRUTH = np.zeros((7, 9), bool)
TRUTH[2:5, 3:8] = True
TRUTH[3, 4] = False


def shapes_of_truth() -> dict[str, object]:
    compressed = coco_mask.encode(np.asfortranarray(TRUTH.astype(np.uint8)))
    flat = TRUTH.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(int))).tolist()
    counts = np.diff([0, *edges, flat.size]).tolist()
    return {"bytes": compressed, "text": {"size": [7, 9], "counts": compressed["counts"].decode()},
            "list": {"size": [7, 9], "counts": counts}}


@pytest.mark.parametrize("form", ["bytes", "text", "list"])
def test_every_form_of_run_lengths_is_read(form):
    ((name, mask),) = CocoShape(PATH, "cyst", shapes_of_truth()[form]).read(7, 9)
    assert name == "cyst"
    np.testing.assert_array_equal(mask, TRUTH)


def test_the_polygons_of_one_coco_shape_are_one_mask():
    first, second = [1, 1, 4, 1, 4, 4, 1, 4], [6, 2, 8, 2, 8, 6, 6, 6]
    ((_, mask),) = CocoShape(PATH, "cyst", [first, second]).read(7, 9)
    truth = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([first, second], 7, 9)))
    np.testing.assert_array_equal(mask, truth.astype(bool))


@pytest.mark.parametrize("bad", [[], [[]], [[1, 1, 3, 3]], [[1, 1, 3, 3, 5]], {"size": [9, 7], "counts": [63]}, None,
                                 [[1, 1, 3, 3, float("nan"), 2]]])
def test_impossible_coco_shapes_are_named(bad):
    with pytest.raises(DataError, match=r"labels\.json: annotation 5"):
        CocoShape(PATH, "cyst", bad, where="annotation 5").read(7, 9)


def save(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, (3, 5, 6)).astype(np.int16)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.float64])
def test_a_label_volume_gives_one_mask_per_value_of_the_frame(tmp_path, labels, kind):
    path = save(tmp_path / "v.npy", labels.astype(kind))
    for index in range(3):
        found = VolumeLabels(path, index, {3: "liver", 1: "cyst"}, ignored=(2,)).read(5, 6)
        assert [name for name, _ in found] == ["cyst", "liver"]
        for (_, mask), value in zip(found, (1, 3), strict=True):
            np.testing.assert_array_equal(mask, labels[index] == value)
            assert mask.flags.c_contiguous
        turned = VolumeLabels(path, index, {3: "liver", 1: "cyst"}, ignored=(2,), flips=(True, True)).read(5, 6)
        np.testing.assert_array_equal(turned[0][1], (labels[index] == 1)[::-1, ::-1])


@pytest.mark.parametrize(("odd", "words"), [
    (7, r"frame 1: the values \[1, 2, 3\] were expected, found also \[7.*\]"), (1.5, r"found also \[1\.5\]"),
    (np.nan, r"found also \[nan\]"), (-1, r"found also \[-1"),
])
def test_unknown_labels_are_listed(tmp_path, labels, odd, words):
    values = labels.astype(np.float64)
    values[1, 2, 2] = odd
    path = save(tmp_path / "v.npy", values)
    VolumeLabels(path, 0, {1: "a", 2: "b", 3: "c"}).read(5, 6)
    with pytest.raises(DataError, match=words):
        VolumeLabels(path, 1, {1: "a", 2: "b", 3: "c"}).read(5, 6)


def test_a_channel_is_one_category_and_has_to_exist(tmp_path, labels):
    channels = np.stack([labels == 1, labels == 2], axis=-1).astype(np.float32) * 0.5
    path = save(tmp_path / "v.npy", channels)
    ((name, mask),) = VolumeLabels(path, 0, {1: "landmark"}, channel=1).read(5, 6)
    assert name == "landmark"
    np.testing.assert_array_equal(mask, labels[0] == 2)
    with pytest.raises(DataError, match=r"channel 2 .* was expected, found 2"):
        VolumeLabels(path, 0, {1: "landmark"}, channel=2).read(5, 6)
    with pytest.raises(DataError, match="one label per pixel was expected, found 2 channels"):
        VolumeLabels(path, 0, {1: "landmark"}).read(5, 6)
    save(path, channels[..., 0])
    ((_, mask),) = VolumeLabels(path, 0, {1: "landmark"}, channel=0).read(5, 6)
    np.testing.assert_array_equal(mask, labels[0] == 1)
    with pytest.raises(DataError, match=r"channel 1 .* was expected, found 1"):
        VolumeLabels(path, 0, {1: "landmark"}, channel=1).read(5, 6)
    save(path, np.zeros((3, 5, 6, 1), np.uint8))
    assert VolumeLabels(path, 0, {1: "landmark"}, channel=0).read(5, 6) == []
    assert VolumeLabels(path, 0, {1: "landmark"}).read(5, 6) == []


def test_label_frames_of_another_size_are_refused(tmp_path, labels):
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), tmp_path / "v.nii.gz")
    found = VolumeLabels(tmp_path / "v.nii.gz", 4, {1: "a", 2: "b", 3: "c"}).read(5, 3)
    np.testing.assert_array_equal(found[0][1], labels[:, :, 4].T == 1)
    with pytest.raises(DataError, match=r"the label frame is 3 x 5 pixels .* its image is 5 x 3"):
        VolumeLabels(tmp_path / "v.nii.gz", 4, {1: "a"}).read(3, 5)


def test_shape_sources_name_their_file_and_can_be_sent_to_a_process():
    for source in (Polygons(PATH, (("x", ((0, 0), (1, 0), (1, 1))),)), CocoShape(PATH, "x", [[0, 0, 1, 0, 1, 1]]),
                   VolumeLabels(PATH, 2, {1: "x"}, channel=1)):
        assert source.paths == (PATH,)
        assert pickle.loads(pickle.dumps(source)) == source
