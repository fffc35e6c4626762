"""Parts of the report: which images are shown, contours, sizes, axes."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

from data_prep.report.annotations import ImageEntry, read_masks, read_outline
from data_prep.report.charts import axis_steps, diameter_histogram, image_size_chart
from data_prep.report.examples import Candidate, choose
from data_prep.report.pictures import PALETTE, draw_example
from data_prep.report.sizes import quantiles
from data_prep.report.summary import Example, summarize
from ultrasam.datasets.coco_write import write_coco
from ultrasam.geometry.rle import encode_mask


def candidate(number: int, group: str, *categories: str) -> Candidate:
    return Candidate("train", ImageEntry(number, f"set/images/{number}.png", 10, 10, "set", group), categories)


def test_the_choice_covers_categories_then_groups_and_never_depends_on_the_order():
    images = [candidate(number, f"video {number // 50}", "liver") for number in range(200)]
    images += [candidate(200, "video 0", "rare"), candidate(201, "video 1", "rarer", "liver")]
    chosen = choose(images, 6)
    assert {200, 201} <= {item.image.id for item in chosen}
    assert {item.image.group for item in chosen} == {f"video {number}" for number in range(4)}
    shuffled = images[:]
    random.Random(3).shuffle(shuffled)
    assert choose(shuffled, 6) == chosen
    assert len(set(chosen)) == 6
    assert choose(images[:3], 6) == choose(images[:3], 3)
    assert choose(images, 0) == []


def test_contours_follow_the_mask_in_the_colour_of_its_category(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.full((150, 200), 90, np.uint8)).save(path)
    mask = np.zeros((150, 200), bool)
    mask[40:110, 60:150] = True
    mask[60:80, 90:120] = False
    drawn = draw_example(Example(path, "a.png", "train", (("cyst", encode_mask(mask)),), (150, 200)), ("x", "cyst"))
    assert drawn.shape == (300, 400, 3)
    wanted = np.array(tuple(bytes.fromhex(PALETTE[1][1:])))
    rows, columns = np.nonzero((np.abs(drawn.astype(int) - wanted) < 12).all(axis=2))
    assert len(rows)
    assert (rows.min(), rows.max() + 1) == (pytest.approx(80, abs=2), pytest.approx(220, abs=2))
    assert (columns.min(), columns.max() + 1) == (pytest.approx(120, abs=2), pytest.approx(300, abs=2))
    # The border of the hole is drawn, and nothing between it and the outer border.
    assert ((rows > 115) & (rows < 165) & (columns > 176) & (columns < 184)).any()
    assert (drawn[100, 150] == 90).all() and (drawn[140, 210] == 90).all() and (drawn[20, 20] == 90).all()


def test_a_thin_structure_of_a_large_image_keeps_its_contour(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((1200, 1600), np.uint8)).save(path)
    mask = np.zeros((1200, 1600), bool)
    mask[600:602, 100:1500] = True
    drawn = draw_example(Example(path, "a.png", "train", (("line", encode_mask(mask)),), (1200, 1600)), ("line",))
    assert drawn.shape == (300, 400, 3)
    assert (drawn[140:160].max(axis=(0, 2)) > 100).sum() > 300


def test_the_outline_has_no_masks_and_one_image_can_be_asked_for(tmp_path):
    mask = np.zeros((8, 9), bool)
    mask[2:5, 3:7] = True
    images = [{"id": number, "file_name": f"s/images/{number}.png", "width": 9, "height": 8} for number in (1, 2)]
    annotations = [{"id": number, "image_id": image, "category_id": 7, "area": 12, "bbox": [3, 2, 4, 3], "iscrowd": 0,
                    "segmentation": encode_mask(mask)} for number, image in enumerate((1, 2, 2), start=1)]
    path = tmp_path / "a.json"
    write_coco(path, {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "cyst"}]})
    outline = read_outline(path)
    assert [tuple(item) for item in outline.objects] == [(1, 7, 12), (2, 7, 12), (2, 7, 12)]
    assert [image.file_name for image in outline.images] == ["s/images/1.png", "s/images/2.png"]
    assert outline.categories == {7: "cyst"}
    assert read_masks(path, [2]) == {2: [(7, encode_mask(mask))] * 2}


def test_object_sizes_are_those_of_discs_at_1024_pixels(tmp_path):
    from test_report import box, write_set

    size = (300, 512)
    masks = [("a", box(size, 0, 0, 10, 10)), ("a", box(size, 0, 0, 100, 100)), ("a", box(size, 0, 0, 300, 512))]
    write_set(tmp_path, "own", {"train": [{"name": "a", "group": "1", "size": size, "masks": masks}]})
    content = next(row.content for row in summarize(tmp_path, 0).converted)
    assert content is not None
    expected = [2 * (area / np.pi) ** 0.5 * 1024 / 512 for area in (100, 10_000, 153_600)]
    np.testing.assert_allclose(content.diameters, expected, rtol=1e-5)
    assert content.image_sizes == {(512, 300): 1}
    assert quantiles(content.diameters)[1] == pytest.approx(expected[1], rel=1e-5)
    assert quantiles(np.zeros(0, np.float32)) is None


def test_every_object_and_image_is_in_its_chart():
    diameters = np.array([0.5, 3, 3, 100, 5000], np.float32)
    drawing = diameter_histogram(diameters)
    for text in ("2 to 3 pixels: 1<", "3 to 4 pixels: 2<", "91 to 128 pixels: 1<", "724 to 1024 pixels: 1<"):
        assert text in drawing
    drawing = image_size_chart({(640, 480): 7, (641, 480): 2, (100, 200): 1})
    assert drawing.count("<circle") == 2
    assert "9 images" in drawing and "1 images" in drawing
    assert "nan" not in diameter_histogram(np.zeros(0, np.float32)) + image_size_chart({})


@pytest.mark.parametrize("most", [0, 1, 4, 7, 12, 99, 100, 101, 1024, 99_999, 282_321])
def test_axes_end_above_the_largest_value_at_round_numbers(most):
    steps = axis_steps(most)
    assert steps[0] == 0 and steps[-1] >= max(most, 1) and 2 <= len(steps) <= 6
    step = steps[1]
    assert steps == [number * step for number in range(len(steps))]
    assert steps[-1] - step < max(most, 1)
    assert str(step).strip("0") in ("1", "2", "25", "5")
