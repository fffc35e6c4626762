"""Reading the run lengths of compressed COCO masks in bulk, with every check that the C code leaves out.

pycocotools reads past the end of a damaged string and writes past the end of the picture, so that one bad
file can end the interpreter. Here whole batches are parsed with numpy, which also makes area and box of all
objects of a large file available at the price of a few seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ultrasam.errors import DataError

# A 33-bit signed difference needs seven characters of five bits; anything longer is damage.
_MAX_CHARACTERS = 7
# A batch this small stays in the processor's cache, which makes it twice as fast as a large one.
_BATCH_CHARACTERS = 100_000

Where = Callable[[int], str]


@dataclass(frozen=True)
class RunBatch:
    """Run lengths of several masks, as pairs of a background run and the foreground run after it.

    Attributes:
        background: int64 (P,), run lengths in pixels, in column-major order.
        foreground: int64 (P,), run lengths in pixels; 0 after a mask that ends with background.
        first: int64 (N + 1,), the pairs of mask ``i`` are ``first[i]`` to ``first[i + 1]`` (exclusive).
    """

    background: NDArray[np.int64]
    foreground: NDArray[np.int64]
    first: NDArray[np.int64]


def parse_counts(counts: Sequence[bytes], where: Where) -> RunBatch:
    """Decode the COCO run-length strings of several masks.

    Args:
        counts: the compressed strings, ASCII, none of them empty.
        where: gives the words that name mask ``i`` in an error.

    Returns:
        The run lengths; they may still be negative or have a wrong sum (see :func:`measure`).

    Raises:
        DataError: a character that is not in the alphabet, or a number that does not end.
    """
    sizes = np.fromiter((len(c) for c in counts), dtype=np.int64, count=len(counts))
    if (sizes == 0).any():
        name = where(int(np.argmin(sizes)))
        raise DataError(f"{name}: the compressed RLE string is empty; export the mask again")
    ends = np.cumsum(sizes)
    # Characters below "0" wrap around to large codes.
    codes = np.frombuffer(b"".join(counts), dtype=np.uint8) - np.uint8(48)
    bad = np.flatnonzero(codes > 63)
    if bad.size:
        character = chr((int(codes[bad[0]]) + 48) % 256)
        raise _damaged(where, ends, int(bad[0]), f"holds the character {character!r}")

    is_last = codes < 0x20
    unfinished = np.flatnonzero(~is_last[ends - 1])
    if unfinished.size:
        raise _damaged(where, ends, int(ends[unfinished[0]] - 1), "stops in the middle of a number")
    last = np.flatnonzero(is_last)
    start = np.concatenate(([0], last[:-1] + 1))
    width = last - start + 1
    if (width > _MAX_CHARACTERS).any():
        raise _damaged(where, ends, int(start[np.argmax(width)]), "holds a number of more than 32 bits")

    value = (codes[start] & 0x1F).astype(np.int64)
    for digit in range(1, int(width.max())):
        longer = np.flatnonzero(width > digit)
        value[longer] |= (codes[start[longer] + digit] & 0x1F).astype(np.int64) << (5 * digit)
    negative = np.flatnonzero(codes[last] & 0x10)
    value[negative] -= np.int64(1) << (5 * width[negative])

    runs = np.diff(np.searchsorted(last, ends - 1) + 1, prepend=0)
    return _undo_differences(value, runs)


def _damaged(where: Where, ends: NDArray[np.int64], character: int, what: str) -> DataError:
    index = int(np.searchsorted(ends, character, side="right"))
    return DataError(
        f"{where(index)}: the compressed RLE string is damaged, it {what}; export the mask again"
    )


def _undo_differences(value: NDArray[np.int64], runs: NDArray[np.int64]) -> RunBatch:
    """From the fourth run of a mask on, COCO stores the difference to the run before the previous one."""
    pairs = (runs + 1) // 2
    first = np.concatenate(([0], np.cumsum(pairs)))
    halves = np.cumsum(runs % 2)
    # A mask of an odd number of runs gets one more place, so that background and foreground alternate.
    padded = np.zeros(2 * int(first[-1]), dtype=np.int64)
    padded[np.arange(value.size) + np.repeat(halves - runs % 2, runs)] = value
    background, foreground = padded[0::2], padded[1::2]

    # The first two background runs and the first foreground run of a mask stand for themselves.
    opening = background[first[:-1]]
    background[first[:-1]] = 0
    background = _sums_within(background, first, pairs)
    background[first[:-1]] = opening
    foreground = _sums_within(foreground, first, pairs)
    foreground[first[1:][runs % 2 == 1] - 1] = 0
    return RunBatch(background, foreground, first)


def _sums_within(
    values: NDArray[np.int64], first: NDArray[np.int64], pairs: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Cumulative sums that start anew with every mask."""
    total = np.cumsum(values)
    total -= np.repeat(total[first[:-1]] - values[first[:-1]], pairs)
    return total


def measure(
    counts: Sequence[bytes], heights: NDArray[np.int64], widths: NDArray[np.int64], where: Where
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Check compressed masks completely and give area and box of each.

    Args:
        counts: N compressed strings.
        heights: int64 (N,), image heights in pixels.
        widths: int64 (N,), image widths in pixels.
        where: gives the words that name mask ``i`` in an error.

    Returns:
        areas int64 (N,) in pixels, and boxes float64 (N, 4) as half-open x1, y1, x2, y2; an empty mask has
        area 0 and the box 0, 0, 0, 0.

    Raises:
        DataError: a damaged string, or runs that do not cover exactly the image.
    """
    areas = np.zeros(len(counts), dtype=np.int64)
    boxes = np.zeros((len(counts), 4), dtype=np.float64)
    for begin, end in _batches(counts):

        def name(index: int, begin: int = begin) -> str:
            return where(begin + index)

        part = slice(begin, end)
        batch = parse_counts(counts[begin:end], name)
        areas[part], boxes[part] = _measure_batch(batch, heights[part], widths[part], name)
    return areas, boxes


def _batches(counts: Sequence[bytes]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    begin, characters = 0, 0
    for index, text in enumerate(counts):
        if characters and characters + len(text) > _BATCH_CHARACTERS:
            spans.append((begin, index))
            begin, characters = index, 0
        characters += len(text)
    if begin < len(counts):
        spans.append((begin, len(counts)))
    return spans


def _measure_batch(
    batch: RunBatch, heights: NDArray[np.int64], widths: NDArray[np.int64], where: Where
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    begin, pairs = batch.first[:-1], np.diff(batch.first)
    shortest = np.minimum(batch.background, batch.foreground)
    if (shortest < 0).any():
        index = int(np.searchsorted(batch.first, np.argmin(shortest), side="right")) - 1
        raise DataError(
            f"{where(index)}: the compressed RLE string is damaged, a run is negative; export the mask again"
        )
    lengths = batch.background + batch.foreground
    totals = np.add.reduceat(lengths, begin)
    wrong = np.flatnonzero(totals != heights * widths)
    if wrong.size:
        index = int(wrong[0])
        raise DataError(
            f"{where(index)}: the RLE covers {totals[index]} pixels but its image has "
            f"{heights[index]} x {widths[index]} = {heights[index] * widths[index]}; export the mask again"
        )

    drawn = np.flatnonzero(batch.foreground)
    stop = _sums_within(lengths, batch.first, pairs)[drawn]
    start, final = stop - batch.foreground[drawn], stop - 1
    owner = np.repeat(np.arange(pairs.size), pairs)[drawn]
    height = heights[owner]
    # Division in float64 is exact enough below 2**31 pixels and several times faster than that of int64.
    x1, x2 = (start / height).astype(np.int64), (final / height).astype(np.int64)
    # A run that goes on in the next column touches both the last and the first row.
    wraps = x2 > x1
    y1 = np.where(wraps, 0, start - x1 * height)
    y2 = np.where(wraps, height - 1, final - x2 * height)

    boxes = np.zeros((pairs.size, 4), dtype=np.float64)
    if owner.size:
        at = np.flatnonzero(np.concatenate(([True], owner[1:] != owner[:-1])))
        rows = owner[at]
        boxes[rows, 0] = np.minimum.reduceat(x1, at)
        boxes[rows, 1] = np.minimum.reduceat(y1, at)
        boxes[rows, 2] = np.maximum.reduceat(x2, at) + 1
        boxes[rows, 3] = np.maximum.reduceat(y2, at) + 1
    return np.add.reduceat(batch.foreground, begin), boxes
