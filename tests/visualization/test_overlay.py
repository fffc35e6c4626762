"""Overlays: what is drawn lies where it must, in the colours that were promised, at readable sizes."""

import numpy as np
import pytest

from ultrasam.errors import ConfigError, DataError, PromptError
from ultrasam.visualization import drawing
from ultrasam.visualization.overlay import MIN_SIDE, contact_sheet, draw_overlay


def grey(height=320, width=640, value=90):
    return np.full((height, width, 3), value, dtype=np.uint8)


def disc(height=320, width=640, x=300, y=160, radius=80):
    v, u = np.mgrid[:height, :width]
    return (u - x) ** 2 + (v - y) ** 2 <= radius**2


def close_to(picture, colour, tolerance=12):
    return (np.abs(picture.astype(int) - np.array(colour)) <= tolerance).all(axis=2)


def test_nothing_to_draw_leaves_the_image():
    image = np.random.default_rng(0).integers(0, 255, (300, 700, 3), dtype=np.uint8)
    picture = draw_overlay(image)
    assert np.array_equal(picture, image)
    assert picture is not image


def test_the_input_is_not_drawn_on():
    image = grey()
    draw_overlay(image, prediction=disc(), truth=disc(), points=[[300, 160]], boxes=[[0, 0, 9, 9]], title="a")
    assert (image == 90).all()


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (1, 1), (128, 128), (500, 900)])
def test_small_images_are_enlarged_in_proportion(size):
    picture = draw_overlay(grey(*size))
    assert max(picture.shape[:2]) == max(MIN_SIDE, *size)
    assert picture.shape[0] / picture.shape[1] == pytest.approx(size[0] / size[1], rel=0.01)


def test_prediction_fills_the_disc_and_nothing_else():
    mask = disc()
    changed = (draw_overlay(grey(), prediction=mask) != 90).any(axis=2)
    radius = np.hypot(*(np.mgrid[:320, :640] - np.array([160, 300])[:, None, None]))
    assert changed[radius <= 80].all()
    assert not changed[radius > 85].any()
    blend = draw_overlay(grey(), prediction=mask)[160, 300]
    assert blend == pytest.approx(0.62 * 90 + 0.38 * np.array(drawing.PREDICTION), abs=1)


def test_truth_is_an_outline_only():
    picture = draw_overlay(grey(), truth=disc())
    on_border = close_to(picture, drawing.TRUTH)
    v, u = np.nonzero(on_border)
    radius = np.hypot(u - 300, v - 160)
    assert radius.min() > 77 and radius.max() < 83
    angles = np.floor(np.degrees(np.arctan2(v - 160, u - 300)) / 5) % 72
    assert len(set(angles)) == 72
    assert (picture[160, 300] == 90).all()


def test_holes_are_outlined():
    ring = disc() & ~disc(radius=40)
    v, u = np.nonzero(close_to(draw_overlay(grey(), truth=ring), drawing.TRUTH))
    radius = np.hypot(u - 300, v - 160)
    assert ((radius > 37) & (radius < 43)).any() and ((radius > 77) & (radius < 83)).any()
    filled = draw_overlay(grey(), prediction=ring)
    assert (filled[160, 300] == 90).all()


def test_enlarged_marks_lie_on_the_enlarged_image():
    # A 64 x 32 image is drawn ten times larger: pixel (40, 10) has its centre at (404.5, 104.5).
    mask = np.zeros((32, 64), dtype=bool)
    mask[10, 40] = True
    v, u = np.nonzero((draw_overlay(grey(32, 64), prediction=mask) != 90).any(axis=2))
    assert (u.mean(), v.mean()) == pytest.approx((404.5, 104.5), abs=0.6)
    v, u = np.nonzero((draw_overlay(grey(32, 64), points=[[40, 10]]) != 90).any(axis=2))
    assert (u.mean(), v.mean()) == pytest.approx((404.5, 104.5), abs=0.6)
    v, u = np.nonzero(close_to(draw_overlay(grey(32, 64), boxes=[[20, 5, 40, 25]]), drawing.BOX, 30))
    assert (u.min(), u.max(), v.min(), v.max()) == pytest.approx((199.5, 399.5, 49.5, 249.5), abs=2)


def test_points_tell_inside_from_outside():
    picture = draw_overlay(grey(), points=[[100, 100], [500, 200]], point_labels=[1, 0])
    left, right = picture[:, :320], picture[:, 320:]
    assert close_to(left, drawing.POSITIVE).any() and not close_to(left, drawing.NEGATIVE).any()
    assert close_to(right, drawing.NEGATIVE).any() and not close_to(right, drawing.POSITIVE).any()
    # The sign differs too, for readers who see no colours: an upright bar in the plus only.
    assert close_to(picture, drawing.WHITE)[96, 100] and not close_to(picture, drawing.WHITE)[196, 500]


def test_boxes_of_nan_and_empty_masks_are_left_out():
    empty = np.zeros((320, 640), dtype=bool)
    picture = draw_overlay(grey(), prediction=empty, truth=empty, boxes=[[np.nan] * 4], points=[[np.nan, 1]])
    assert (picture == 90).all()


def test_several_objects():
    both = np.stack([disc(x=150, radius=40), disc(x=450, radius=40)])
    changed = (draw_overlay(grey(), prediction=both) != 90).any(axis=2)
    assert changed[160, 150] and changed[160, 450] and not changed[160, 300]


def test_marks_outside_the_image_break_nothing():
    draw_overlay(grey(), points=[[-1000, 5000]], boxes=[[-50, -60, 9000, 8000]])


def test_text_stands_above_the_image():
    picture = draw_overlay(grey(), title="bus_bra / bus_0001-l", score=0.5)
    strip = len(picture) - 320
    assert 15 < strip < 60
    assert (picture[strip:] == 90).all()
    bright = (picture[:strip] > 200).all(axis=2)
    assert bright[:, :200].any() and bright[:, -90:].any() and not bright[:, 300:500].any()


@pytest.mark.parametrize("title", ["x" * 500, "ä ü 超", ""])
def test_any_title_fits(title):
    assert draw_overlay(grey(640, 30), title=title, score=1.0).shape[1] == 30


@pytest.mark.parametrize("width", [40, 100, 300])
def test_shortened_text_keeps_both_ends(width):
    text = "stu_hospital / Test_Image_1.png"
    short = drawing.shortened(text, 17, width)
    assert drawing.text_size(short, 17)[1] <= width
    if width == 300:
        assert short == text
    else:
        head, tail = short.split("...")
        assert text.startswith(head) and text.endswith(tail) and tail


@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (DataError, "original size", {"prediction": np.ones((10, 10), dtype=bool)}),
        (DataError, "boolean", {"truth": np.ones((320, 640), dtype=np.uint8)}),
        (PromptError, "Points", {"points": [[1, 2, 3]]}),
        (PromptError, "Boxes", {"boxes": [1, 2, 3, 4]}),
        (PromptError, "labels", {"points": [[1, 2]], "point_labels": [1, 0]}),
    ],
)
def test_wrong_input(error, words, arguments):
    with pytest.raises(error, match=words):
        draw_overlay(grey(), **arguments)


def test_wrong_image():
    with pytest.raises(DataError, match="uint8"):
        draw_overlay(np.zeros((10, 10), dtype=np.uint8))
    with pytest.raises(DataError, match="float64"):
        draw_overlay(np.zeros((10, 10, 3)))


def test_sheet_has_every_picture_in_reading_order():
    panels = [grey(100, 200, value=100 + 10 * i) for i in range(5)]
    sheet = contact_sheet(panels, 2, legend=False, cell=200)
    assert sheet.shape == (3 * 110 + 10, 2 * 210 + 10, 3)
    for i in range(5):
        y, x = 10 + 110 * (i // 2), 10 + 210 * (i % 2)
        assert (sheet[y : y + 100, x : x + 200] == 100 + 10 * i).all()
    assert close_to(sheet[230:330, 220:420], drawing.PANEL, 0).all()


def test_sheet_does_not_distort():
    tall = grey(400, 100, value=200)
    sheet = contact_sheet([grey(100, 200), tall, grey(100, 200)], 3, legend=False, cell=200)
    v, u = np.nonzero((sheet == 200).all(axis=2))
    assert (np.ptp(v) + 1, np.ptp(u) + 1) == (100, 25)


def test_legend_and_captions_are_drawn():
    plain = contact_sheet([grey()], 4, legend=False)
    captioned = contact_sheet([grey()], 4, ["a caption that is far too long " * 9], legend=False)
    keyed = contact_sheet([grey()], 4)
    assert plain.shape[1] == captioned.shape[1] == keyed.shape[1] == 480
    assert len(plain) < len(captioned) and len(plain) < len(keyed)
    for colour in (drawing.PREDICTION, drawing.TRUTH, drawing.POSITIVE, drawing.NEGATIVE, drawing.BOX):
        assert close_to(keyed[len(plain) :], colour).any()


def test_wrong_sheets():
    with pytest.raises(DataError, match="no pictures"):
        contact_sheet([], 3)
    with pytest.raises(DataError, match="Picture 1"):
        contact_sheet([grey(), np.zeros((3, 3), dtype=np.uint8)], 3)
    with pytest.raises(ConfigError, match="column"):
        contact_sheet([grey()], 0)
    with pytest.raises(ConfigError, match="2 captions"):
        contact_sheet([grey()], 1, ["a", "b"])
