"""The perceptual hash against a DCT of its own, and what it takes for the same picture."""

from __future__ import annotations

import io
import itertools

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from ultrasam.datasets.phantom.patients import KINDS, draw_picture
from ultrasam.io.perceptual_hash import perceptual_hash


def distance(first: str, second: str) -> int:
    """Return the number of bits that differ."""
    return (int(first, 16) ^ int(second, 16)).bit_count()


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Return simulated pictures of different patients and organs."""
    return [rgb(draw_picture(kind, patient, 0, 7, 256).grey) for kind in range(len(KINDS)) for patient in range(2)]


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


def test_it_is_the_sign_of_the_low_cosines_against_their_median(pictures):
    for pixels in pictures:
        grey = pixels.astype(np.float64).mean(axis=2)
        small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA)
        low = dctn(small, norm="ortho")[:8, :8].ravel()
        median = np.median(low[1:])
        found = [bool(int(perceptual_hash(pixels), 16) >> (63 - place) & 1) for place in range(64)]
        sure = np.abs(low - median) > 1e-2
        assert sure.sum() >= 62  # the median itself is one of them
        assert (np.array(found) == (low > median))[sure].all()


def test_it_is_16_digits_and_repeats(pictures):
    found = [perceptual_hash(pixels) for pixels in pictures]
    assert all(len(text) == 16 and int(text, 16) >= 0 for text in found)
    assert found == [perceptual_hash(pixels.copy()) for pixels in pictures]


@pytest.mark.parametrize("change", [
    lambda pixels: jpeg(pixels, 60),
    lambda pixels: cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    lambda pixels: cv2.resize(pixels, None, fx=1.7, fy=1.7, interpolation=cv2.INTER_CUBIC),
    lambda pixels: cv2.resize(pixels, (300, 200), interpolation=cv2.INTER_AREA),
    lambda pixels: np.clip(pixels.astype(int) + 12, 0, 255).astype(np.uint8),
    lambda pixels: (pixels * 0.8).astype(np.uint8),
    lambda pixels: cv2.GaussianBlur(pixels, (0, 0), 1.5),
], ids=["jpeg", "half", "larger", "squeezed", "brighter", "darker", "blurred"])
def test_the_same_picture_stays_near(pictures, change):
    assert max(distance(perceptual_hash(pixels), perceptual_hash(change(pixels))) for pixels in pictures) <= 6


def test_other_pictures_are_far(pictures):
    found = [perceptual_hash(pixels) for pixels in pictures]
    assert min(distance(a, b) for a, b in itertools.combinations(found, 2)) >= 10
    mirrored = [perceptual_hash(pixels[:, ::-1]) for pixels in pictures]
    assert np.mean([distance(a, b) for a, b in zip(found, mirrored, strict=True)]) > 12


def test_a_constant_added_changes_nothing():
    pixels = rgb(np.random.default_rng(0).integers(20, 200, (64, 96)).astype(np.uint8))
    assert perceptual_hash(pixels) == perceptual_hash(pixels + np.uint8(40))


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3, 2), (31, 33), (2000, 16)])
def test_any_size_has_a_hash(size):
    assert len(perceptual_hash(np.zeros((*size, 3), np.uint8))) == 16
    noise = np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)
    assert len(perceptual_hash(noise)) == 16
