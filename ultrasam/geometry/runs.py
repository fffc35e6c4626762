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
    """Run lengths of several masks in one array.

    Attributes:
        lengths: int64 (R,), run lengths in pixels, column-major order, background first in every mask.
        first: int64 (N + 1,), the runs of mask ``i`` are ``lengths[first[i]:first[i + 1]]``.
    """

    lengths: NDArray[np.int64]
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

    first = np.concatenate(([0], np.searchsorted(last, ends - 1) + 1)).astype(np.int64)
    return RunBatch(_undo_differences(value, first), first)


def _damaged(where: Where, ends: NDArray[np.int64], character: int, what: str) -> DataError:
    index = int(np.searchsorted(ends, character, side="right"))
    return DataError(
        f"{where(index)}: the compressed RLE string is damaged, it {what}; export the mask again"
    )


def _undo_differences(value: NDArray[np.int64], first: NDArray[np.int64]) -> NDArray[np.int64]:
    """From the fourth run of a mask on, COCO stores the difference to the run before the previous one."""
    runs = np.diff(first)
    position = np.arange(value.size) - np.repeat(first[:-1], runs)
    odd = (position & 1).astype(bool)
    lengths = value.copy()
    for series in (~odd & (position != 0), odd):
        total = np.cumsum(np.where(series, value, 0))
        before = np.concatenate(([0], total))[first[:-1]]
        np.copyto(lengths, total - np.repeat(before, runs), where=series)
    return lengths


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
    lengths, begin = batch.lengths, batch.first[:-1]
    runs = np.diff(batch.first)
    if (lengths < 0).any():
        index = int(np.searchsorted(batch.first, np.argmin(lengths), side="right")) - 1
        raise DataError(
            f"{where(index)}: the compressed RLE string is damaged, a run is negative; export the mask again"
        )
    totals = np.add.reduceat(lengths, begin)
    wrong = np.flatnonzero(totals != heights * widths)
    if wrong.size:
        index = int(wrong[0])
        raise DataError(
            f"{where(index)}: the RLE covers {totals[index]} pixels but its image has "
            f"{heights[index]} x {widths[index]} = {heights[index] * widths[index]}; export the mask again"
        )

    stop = np.cumsum(lengths)
    stop -= np.repeat(stop[begin] - lengths[begin], runs)
    start = stop - lengths
    owner = np.repeat(np.arange(runs.size), runs)
    # The parity of the position inside the mask, from those of the position and of the mask's first run.
    odd = (np.arange(lengths.size) ^ np.repeat(begin, runs)) & 1
    foreground = (odd == 1) & (lengths > 0)
    areas = np.add.reduceat(np.where(foreground, lengths, 0), begin)

    start, final, owner = start[foreground], stop[foreground] - 1, owner[foreground]
    height = heights[owner]
    # Division in float64 is exact enough below 2**31 pixels and several times faster than that of int64.
    x1, x2 = (start / height).astype(np.int64), (final / height).astype(np.int64)
    # A run that goes on in the next column touches both the last and the first row.
    wraps = x2 > x1
    y1 = np.where(wraps, 0, start - x1 * height)
    y2 = np.where(wraps, height - 1, final - x2 * height)

    boxes = np.zeros((runs.size, 4), dtype=np.float64)
    if owner.size:
        at = np.flatnonzero(np.concatenate(([True], owner[1:] != owner[:-1])))
        rows = owner[at]
        boxes[rows, 0] = np.minimum.reduceat(x1, at)
        boxes[rows, 1] = np.minimum.reduceat(y1, at)
        boxes[rows, 2] = np.maximum.reduceat(x2, at) + 1
        boxes[rows, 3] = np.maximum.reduceat(y2, at) + 1
    return areas, boxes
