"""Run-length encodings of any kind, made sound."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from data_prep.doctor.polygons import Mended
from data_prep.doctor.values import Box, Size, near, same_shape, size_of
from ultrasam.datasets.coco import BOX_TOLERANCE
from ultrasam.errors import DataError
from ultrasam.geometry.rle import RLE, decode_mask, decode_segmentation, encode_mask, rle_box

LISTED = "RLE with a list of counts (uncompressed)"
BYTES = "RLE whose counts are bytes written as text or numbers"
SWAPPED = "RLE size [width, height]"
WRONG_SIZE = "RLE size is not that of the image"
DAMAGED = "damaged RLE"


def mend_runs(value: Mapping[str, Any], size: Size, box: Box | None) -> Mended:
    """Make a run-length encoding sound.

    Args:
        value: the object under ``segmentation``.
        size: (height, width) of the image.
        box: corners of the given box, in pixels of the image; settles what a swapped size means.
    """
    mended = Mended(None)
    counts = _counts(value.get("counts"), size, _given_size(value), mended)
    given = _given_size(value)
    fitting = None if counts is None else _rle(counts, size)
    if fitting is not None and given == size:
        mended.segmentation = fitting if mended.notes else dict(value)
    elif fitting is not None and given == size[::-1]:
        mended.segmentation = _turned_or_not(fitting, counts, size, box)
        mended.notes.append((SWAPPED, "made [height, width]"))
    elif fitting is not None:
        mended.segmentation = fitting
        mended.notes.append((WRONG_SIZE, "set; the counts are those of the image"))
    elif counts is not None and given is not None and (other := _rle(counts, given)) is not None:
        if same_shape(given, size):
            mended.segmentation = _resized(other, size)
            mended.notes.append((WRONG_SIZE, "resized to the image (nearest pixel)"))
        else:
            mended.notes.append((WRONG_SIZE, "dropped"))
    else:
        mended.notes.append((DAMAGED, "dropped"))
    return mended


def _given_size(value: Mapping[str, Any]) -> Size | None:
    size = value.get("size")
    if not isinstance(size, list) or [type(side) for side in size] != [int, int]:
        return None
    return size_of(size[0], size[1])


def _counts(value: Any, size: Size, given: Size | None, mended: Mended) -> str | list[int] | None:
    """Return the counts as a compressed text or as a list of run lengths, None where they are neither."""
    if isinstance(value, str):
        if value[:2] in ("b'", 'b"'):
            mended.notes.append((BYTES, "made text"))
            return _literal(value)
        return value
    if not isinstance(value, list) or not value:
        return None
    if not all(isinstance(run, (int, float)) and not isinstance(run, bool) and run >= 0 and run % 1 == 0
               for run in value):
        return None
    runs = [int(run) for run in value]
    if sum(runs) not in (size[0] * size[1], given[0] * given[1] if given else -1) and all(
            48 <= run < 112 for run in runs):
        mended.notes.append((BYTES, "made text"))
        return bytes(runs).decode("ascii")
    mended.notes.append((LISTED, "compressed"))
    return runs


def _literal(text: str) -> str | None:
    """Return the text of a bytes literal such as ``b'abc'``, None where it is none."""
    try:
        found = ast.literal_eval(text)
        return found.decode("ascii") if isinstance(found, bytes) else None
    except (SyntaxError, ValueError, UnicodeDecodeError, MemoryError, RecursionError):
        # The counts are then reported as damaged.
        return None


def _rle(counts: str | list[int], size: Size) -> RLE | None:
    """Return the compressed RLE of counts that cover exactly an image of a size, else None."""
    try:
        return decode_segmentation({"size": list(size), "counts": counts}, *size, where="")
    except DataError:
        # That they do not fit is what the caller asks.
        return None


def _turned_or_not(fitting: RLE, counts: str | list[int] | None, size: Size, box: Box | None) -> RLE:
    """Return the RLE of a swapped size: the size alone is wrong, or the mask was encoded row by row.

    The given box decides, and without one that fits the reading with the shorter outline, as the wrong one
    shears the shape.
    """
    turned = None if counts is None else _rle(counts, size[::-1])
    if turned is None:
        return fitting
    transposed = decode_mask(turned).T
    other = encode_mask(np.ascontiguousarray(transposed))
    if box is not None:
        fits = [near(rle_box(rle), box, BOX_TOLERANCE) for rle in (fitting, other)]
        if fits[0] != fits[1]:
            return fitting if fits[0] else other
    return fitting if _outline(decode_mask(fitting)) <= _outline(transposed) else other


def _outline(mask: np.ndarray) -> int:
    """Return the number of borders between neighbouring pixels."""
    return int((mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum())


def _resized(rle: RLE, size: Size) -> RLE:
    mask = decode_mask(rle).astype(np.uint8)
    resized = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return encode_mask(resized.astype(bool))
