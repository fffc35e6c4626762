"""The crop of background around field of view and masks."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.fov import background_crop
from ultrasam.io.fov import field_of_view


def test_a_small_fan_in_a_large_black_image():
    rows, columns = np.mgrid[:1000, :1000]
    picture = (rows >= 400) & (rows < 500) & (np.abs(columns - 350) < (rows - 390) // 2)
    noise = cv2.GaussianBlur(np.random.default_rng(0).rayleigh(60, picture.shape), (0, 0), 1.2)
    pixels = (np.clip(noise, 0, 255) * picture).astype(np.uint8)
    x1, y1, x2, y2 = background_crop(field_of_view(np.repeat(pixels[..., None], 3, axis=2)), [])
    assert (x2 - x1, y2 - y1) <= (130, 120)
    assert picture[y1:y2, x1:x2].sum() == picture.sum()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_crop_holds_picture_and_masks_with_a_margin(data):
    height, width = data.draw(st.integers(20, 60)), data.draw(st.integers(20, 60))

    def box() -> np.ndarray:
        top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
        made = np.zeros((height, width), bool)
        made[top:bottom, left:right] = True
        return made

    fov, mask = box(), box()
    kept = fov | mask
    before = fov.copy()
    crop = background_crop(fov, [("x", mask), ("y", np.zeros_like(mask))])
    np.testing.assert_array_equal(fov, before)
    rows, columns = np.nonzero(kept)
    wanted = (max(columns.min() - 8, 0), max(rows.min() - 8, 0),
              min(columns.max() + 9, width), min(rows.max() + 9, height))
    if fov.mean() >= 0.5 or wanted == (0, 0, width, height):
        assert crop is None
    else:
        assert crop == wanted
        assert all(type(value) is int for value in crop)
