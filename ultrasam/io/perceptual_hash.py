"""A perceptual hash, equal or near for the same picture after resizing, brightening or re-encoding."""

from __future__ import annotations

import cv2
import numpy as np

_SIDE, _KEPT = 32, 8


def perceptual_hash(pixels: np.ndarray) -> str:
    """Return the 64-bit DCT hash (pHash) of an image as 16 hexadecimal digits.

    The image is reduced to 32 x 32 greys; bit k says whether the k-th of the 8 x 8 lowest cosine coefficients
    is above their median. The constant one is left out of the median, so brightness changes nothing.

    Args:
        pixels: uint8 H x W x 3.
    """
    grey = pixels.mean(axis=2, dtype=np.float32)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small)[:_KEPT, :_KEPT].ravel()
    bits = low > np.median(low[1:])
    return np.packbits(bits).tobytes().hex()
