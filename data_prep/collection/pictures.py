"""Whether two images show the same picture, told by their speckle.

Ultrasound images of one kind have the same sector, the same dark cavities and the same logo, and so nearly the same
perceptual hash. What differs is the fine structure, so that alone is compared: thumbnails without their low
frequencies, of the same contrast everywhere, so that borders and writing do not outweigh the speckle.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ultrasam.io.images import read_image

# Correlation of the fine structure. On real images: resized (also by nearest neighbour), brightened, compressed and
# overwritten copies have 0.87 and more, neighbouring frames of one patient mostly 0.7 and more, different patients
# in one sector with one cavity up to 0.35.
LIKENESS = 0.7
_SIDE = 32
# Of the surroundings that are subtracted, and of those whose contrast is made one; in pixels.
_SIGMA, _CONTRAST_SIGMA = 1.0, 1.5
# Darker pixels (of 255) are cavity, shadow or background.
_DARK = 8.0
# With fewer bright pixels than this in common only pictures equal within a grey value are taken for the same.
_ENOUGH = 51
_EQUAL = 1
_PORTION = 10_000


@dataclass(frozen=True)
class Thumbnails:
    """Images of 32 x 32 pixels.

    Attributes:
        grey: uint8 (N, 32 * 32).
        detail: float16 (N, 32 * 32), the grey values minus their surroundings, by the contrast around.
        bright: bool (N, 32 * 32), pixels that are bright together with all their neighbours.
    """

    grey: NDArray[np.uint8]
    detail: NDArray[np.float16]
    bright: NDArray[np.bool_]


def read_thumbnails(paths: Sequence[Path], workers: int) -> Thumbnails:
    """Open images and reduce them.

    Raises:
        DataError: an image is missing or cannot be read.
    """
    shape = (len(paths), _SIDE * _SIDE)
    found = Thumbnails(np.zeros(shape, np.uint8), np.zeros(shape, np.float16), np.zeros(shape, bool))
    # Decoding and resizing leave the interpreter free, so threads are enough.
    with ThreadPoolExecutor(workers) as pool:
        reduced = pool.map(_reduce, paths)
        for number, thumbnail in enumerate(tqdm(reduced, total=len(paths), desc="near duplicates", unit="image",
                                                disable=None)):
            found.grey[number] = np.rint(thumbnail).ravel()
            bright = (thumbnail > _DARK).astype(np.float32)
            found.detail[number] = _fine_structure(thumbnail, bright).ravel()
            found.bright[number] = cv2.erode(bright, np.ones((3, 3), np.uint8)).ravel() > 0
    return found


def _fine_structure(thumbnail: NDArray[np.float32], bright: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what stands out from its surroundings, in units of the contrast there; dark pixels do not count."""
    detail = (thumbnail - _mean_around(thumbnail, bright, _SIGMA)) * bright
    # One grey value more, or the noise of an even area would be as strong as speckle.
    return detail / (np.sqrt(_mean_around(detail**2, bright, _CONTRAST_SIGMA)) + 1)


def _mean_around(values: NDArray[np.float32], bright: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Return the mean of the bright pixels around each pixel."""
    total = cv2.GaussianBlur(values * bright, (0, 0), sigma)
    return np.asarray(total / np.maximum(cv2.GaussianBlur(bright, (0, 0), sigma), 1e-3), dtype=np.float32)


def _reduce(path: Path) -> NDArray[np.float32]:
    """Return an image as float32 32 x 32 grey values."""
    grey = read_image(path).mean(axis=2, dtype=np.float32)
    return np.asarray(cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), dtype=np.float32)


def same_picture(thumbnails: Thumbnails, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which pairs are the same picture.

    Args:
        thumbnails: of N images.
        pairs: int64 (M, 2), positions of the images.

    Returns:
        bool (M,).
    """
    result = np.zeros(len(pairs), dtype=bool)
    for begin in range(0, len(pairs), _PORTION):
        part = slice(begin, begin + _PORTION)
        one, two = pairs[part, 0], pairs[part, 1]
        both = thumbnails.bright[one] & thumbnails.bright[two]
        correlation = _correlation(thumbnails.detail[one], thumbnails.detail[two], both)
        difference = np.abs(thumbnails.grey[one].astype(np.int16) - thumbnails.grey[two]).max(axis=1, initial=0)
        result[part] = np.where(both.sum(axis=1) >= _ENOUGH, correlation >= LIKENESS, difference <= _EQUAL)
    return result


def _correlation(
    one: NDArray[np.float16], two: NDArray[np.float16], where: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return the correlation of every row over the pixels given; 0 where one of them is constant."""
    weight = where.astype(np.float32)
    count = np.maximum(weight.sum(axis=1, keepdims=True), 1)
    centred = []
    for values in (one, two):
        numbers = values.astype(np.float32)
        mean = (numbers * weight).sum(axis=1, keepdims=True) / count
        centred.append((numbers - mean) * weight)
    first, second = centred
    scale = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    return np.asarray((first * second).sum(axis=1) / np.where(scale > 0, scale, 1), dtype=np.float32)
