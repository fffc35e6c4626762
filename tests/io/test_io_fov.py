"""The field of view of drawn and simulated pictures, whose true outline is known."""

from __future__ import annotations

import io
import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from skimage.morphology import convex_hull_image

from ultrasam.datasets.phantom.patients import KINDS, draw_picture
from ultrasam.io.fov import field_of_view

HEIGHT, WIDTH = 450, 600


def sector(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Return the pixels of a curved sector."""
    rows, columns = np.mgrid[:height, :width]
    across, down = columns - width / 2, rows + 0.05 * height
    radius, angle = np.hypot(across, down), np.arctan2(across, down)
    return (radius > 0.15 * height) & (radius < 0.95 * height) & (np.abs(angle) < 0.6)


def speckle(where: np.ndarray, brightness: float = 60) -> np.ndarray:
    """Return an RGB picture with speckle of a mean brightness inside and black outside."""
    noise = np.random.default_rng(0).rayleigh(1, where.shape).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 1.2)
    grey = np.clip(noise * (brightness / noise.mean()), 0, 255) * where
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer).convert("RGB"))


def assert_is(found: np.ndarray, picture: np.ndarray, *, slack: int = 4, least: float = 0.97) -> None:
    """Require that the hull of the picture is covered, and that nothing is more than ``slack`` pixels outside."""
    hull = convex_hull_image(picture)
    assert (found.dtype, found.shape) == (bool, picture.shape)
    assert (found & hull).sum() / (found | hull).sum() > least
    near = cv2.dilate(hull.astype(np.uint8), np.ones((2 * slack + 1, 2 * slack + 1), np.uint8)) > 0
    assert not (found & ~near).any()
    missed = (hull & ~found).sum()
    assert missed <= 0.002 * hull.sum()


@pytest.mark.parametrize("brightness", [150, 60, 25, 12])
def test_a_sector_in_black_is_found_whatever_its_gain(brightness):
    assert_is(field_of_view(speckle(sector(), brightness)), sector())


@pytest.mark.parametrize("size", [(150, 200), (311, 417), (768, 1024), (97, 640)])
def test_sizes_that_do_not_divide(size):
    rows, columns = np.mgrid[:size[0], :size[1]]
    picture = (rows >= size[0] // 8) & (columns >= size[1] // 4) & (columns < size[1] - size[1] // 8)
    assert_is(field_of_view(speckle(picture)), picture, slack=max(size) // 200 + 1, least=0.95)


@pytest.mark.parametrize("kind", range(len(KINDS)))
@pytest.mark.parametrize("patient", range(3))
def test_simulated_pictures_with_burnt_in_marks(kind, patient):
    picture = draw_picture(kind, patient, 0, 4, 256)
    inside = picture.fov.scan_maps()[2]
    found = field_of_view(np.repeat(picture.grey[..., None], 3, axis=2))
    # Where the sound has faded to black, in the last part of the depth, nothing tells the picture from its surround.
    lit = inside & (cv2.blur(picture.grey, (15, 15)) > 15)
    assert (lit & ~found).sum() <= 0.02 * lit.sum()
    near = cv2.dilate(convex_hull_image(inside).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    assert not (found & ~near).any()
    for _, mask in picture.masks:
        assert (mask & ~found).sum() <= 0.01 * mask.sum()


def test_a_linear_picture_that_fills_the_frame_is_all_of_it():
    pixels = speckle(np.ones((HEIGHT, WIDTH), bool))
    assert field_of_view(pixels).all()
    cv2.circle(pixels, (WIDTH // 2, HEIGHT // 2), 130, (0, 0, 0), -1)  # a cyst
    pixels[-120:, 100:250] = 0  # a shadow down to the border
    assert field_of_view(pixels).all()
    assert field_of_view(jpeg(pixels, 40)).all()


def test_black_inside_the_picture_belongs_to_it():
    pixels = speckle(sector())
    cv2.circle(pixels, (WIDTH // 2, HEIGHT // 2), 90, (0, 0, 0), -1)
    assert_is(field_of_view(pixels), sector())
    pixels[200:230] = 0  # cuts the picture in two
    assert_is(field_of_view(pixels), sector())


def test_colour_is_bright_too():
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[..., 2] = speckle(sector(), 30)[..., 0]
    assert_is(field_of_view(pixels), sector())


@pytest.mark.parametrize("quality", [None, 30, 75])
def test_frames_text_and_grey_bars_beside_the_picture_are_left_out(quality):
    pixels = speckle(sector())
    cv2.rectangle(pixels, (3, 3), (WIDTH - 4, HEIGHT - 4), (200, 200, 200), 2)
    cv2.putText(pixels, "12 MHz Gain 50 dB", (12, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2)
    cv2.putText(pixels, "THYROID LEFT", (12, HEIGHT - 15), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 200, 0), 2)
    pixels[80:380, WIDTH - 35:WIDTH - 20] = np.linspace(255, 0, 300)[:, None, None]
    found = field_of_view(pixels if quality is None else jpeg(pixels, quality))
    assert_is(found, sector(), slack=4 if quality is None else 9, least=0.95)


@pytest.mark.parametrize("thickness", [1, 2, 4])
def test_a_frame_that_touches_the_picture_is_cut_off(thickness):
    picture = sector()
    pixels = speckle(picture)
    rows, columns = np.flatnonzero(picture.any(axis=1)), np.flatnonzero(picture.any(axis=0))
    corners = ((int(columns[0]) - 1, int(rows[0]) - 1), (int(columns[-1]) + 1, int(rows[-1]) + 1))
    cv2.rectangle(pixels, *corners, (220, 220, 220), thickness)
    assert_is(field_of_view(pixels), picture, slack=12, least=0.94)


@pytest.mark.parametrize("noise", [2, 4, 7])
def test_noise_in_the_surround_is_not_the_picture(noise):
    steps = np.abs(np.random.default_rng(1).normal(0, noise, (HEIGHT, WIDTH, 1)))
    pixels = np.clip(speckle(sector()) + steps, 0, 255).astype(np.uint8)
    assert_is(field_of_view(pixels), sector(), slack=20, least=0.93)


def test_a_small_fan_in_a_large_black_image():
    picture = np.zeros((1000, 1000), bool)
    picture[400:500, 300:400] = sector(100, 100)
    found = field_of_view(speckle(picture))
    assert_is(found, picture, least=0.85)


@pytest.mark.parametrize("value", [0, 3, 255])
@pytest.mark.parametrize("size", [(1, 1), (15, 200), (16, 16), (300, 400)])
def test_an_image_of_one_value_is_all_field_of_view(value, size):
    assert field_of_view(np.full((*size, 3), value, np.uint8)).all()


def test_images_below_16_pixels_are_all_field_of_view():
    pixels = np.zeros((15, 40, 3), np.uint8)
    pixels[:, :20] = 200
    assert field_of_view(pixels).all()


@settings(max_examples=30, deadline=None)
@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)))
def test_any_image_has_a_convex_field_of_view_of_its_size(grey):
    found = field_of_view(np.repeat(grey[..., None], 3, axis=2))
    assert (found.dtype, found.shape) == (bool, grey.shape)
    assert found.any()
    # The convex hull of pixels holds no other pixel; skimage's is drawn with other rounding.
    hull = convex_hull_image(found) if min(grey.shape) > 2 else found
    assert not (found & ~hull).any()
    assert (hull & ~found).sum() <= 2 * sum(grey.shape)


def test_it_takes_about_a_millisecond_per_hundred_thousand_pixels():
    pixels = speckle(np.ones((600, 800), bool))
    times = []
    for _ in range(12):
        start = time.perf_counter()
        field_of_view(pixels)
        times.append(time.perf_counter() - start)
    assert min(times) < 4.8 * 0.003  # three times that, for busy machines
