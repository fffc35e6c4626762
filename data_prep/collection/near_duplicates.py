"""Pairs of images with nearly the same perceptual hash, found without comparing every image with every other.

A hash has 64 bits in four bands of 16. Two hashes that differ in at most 7 bits differ in at most one bit of some
band, so it is enough to compare hashes of which one band is equal or one flip away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Resizing, JPEG, brightness and contrast change 0 to 6 bits of an ultrasound image; other images differ by 10 and more.
DISTANCE = 6
_BANDS, _BITS = 4, 16
_MOST = 2 * _BANDS - 1
# About half of the bits of a hash are set; an empty picture or one of plain stripes has few or nearly all.
_FEWEST_BITS, _MOST_BITS = 16, 48
# A hash that so many groups share is that of a logo or a colour bar, not of anatomy.
CROWD = 200
# Images of one hash and one group are frames of one video that hardly differ.
_FRAMES = 4
_LARGEST_BUCKET = 20_000
# Comparisons made at once; the arrays of these stay in the cache.
_PORTION = 1_000_000

Indices = NDArray[np.int64]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Candidates:
    """Pairs of images of different groups whose hashes are near.

    Attributes:
        pairs: int64 (M, 2), positions of the images, the smaller first; sorted.
        distances: int64 (M,), number of different bits of each pair.
        blank: images whose hash has too few or too many bits to say anything; not compared.
        crowded: images whose hash is shared by too many groups, or looks like too many others to search them all;
            not (fully) compared.
    """

    pairs: Indices
    distances: Indices
    blank: int
    crowded: int


@dataclass(frozen=True)
class _Runs:
    """The different hashes, and which images have them.

    Attributes:
        values: uint64 (U,), ascending.
        members: int64 (K,), positions of images, those of the first hash first, sorted by group within a hash.
        first: int64 (U + 1,), the images of hash ``u`` are ``members[first[u]:first[u + 1]]``.
        owner: int64 (U,), the one group of the images of a hash; -1 where there are several.
        crowd: bool (U,), hashes of too many groups.
    """

    values: Hashes
    members: Indices
    first: Indices
    owner: Indices
    crowd: NDArray[np.bool_]


def find_candidates(hashes: Hashes, groups: Indices, distance: int = DISTANCE) -> Candidates:
    """Find the pairs of images of different groups whose hashes differ in at most ``distance`` bits.

    Of the images that have both hash and group in common the first four stand for all.

    Args:
        hashes: uint64 (N,).
        groups: int64 (N,), number of the group of each image, from 0.
        distance: 0 to 7 bits.

    Raises:
        ValueError: a larger distance, for which this search would miss pairs.
    """
    if not 0 <= distance <= _MOST:
        raise ValueError(f"a distance of 0 to {_MOST} bits was expected, found {distance}")
    bits = bit_count(hashes)
    useful = np.flatnonzero((bits >= _FEWEST_BITS) & (bits <= _MOST_BITS))
    if not len(useful):
        return Candidates(np.zeros((0, 2), np.int64), np.zeros(0, np.int64), len(hashes), 0)
    runs = _runs(hashes, groups, useful)
    near, unsearched = _near(runs, distance)
    shared = np.flatnonzero((runs.owner == -1) & ~runs.crowd)
    pairs = _pairs_of_images(runs, groups, np.concatenate((near, np.stack((shared, shared), axis=1))))
    affected = np.isin(hashes[useful], runs.values[unsearched | runs.crowd])
    distances = bit_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]])
    return Candidates(pairs, distances, len(hashes) - len(useful), int(affected.sum()))


def bit_count(values: Hashes) -> Indices:
    """Return the number of set bits of each 64-bit number."""
    counter: Any = getattr(np, "bitwise_count", None)  # from NumPy 2
    return bit_count_by_table(values) if counter is None else counter(values).astype(np.int64)


def bit_count_by_table(values: Hashes) -> Indices:
    """Return what `bit_count` does, without NumPy 2."""
    parts = np.ascontiguousarray(values).view(np.uint16).reshape(*values.shape, _BANDS)
    return _BIT_COUNTS[parts].sum(axis=-1, dtype=np.int64)


_BIT_COUNTS = np.array([number.bit_count() for number in range(1 << _BITS)], dtype=np.uint8)


def _runs(hashes: Hashes, groups: Indices, useful: Indices) -> _Runs:
    """Sort the images by hash and group, and keep a few of each."""
    order = useful[np.lexsort((useful, groups[useful], hashes[useful]))]
    kept = np.ones(len(order), dtype=bool)
    earlier, later = order[:-_FRAMES], order[_FRAMES:]
    kept[_FRAMES:] = (hashes[earlier] != hashes[later]) | (groups[earlier] != groups[later])
    members = order[kept]
    values, owners = hashes[members], groups[members]
    new_hash = np.concatenate(([True], values[1:] != values[:-1]))
    new_group = new_hash | np.concatenate(([True], owners[1:] != owners[:-1]))
    first = np.flatnonzero(new_hash)
    count = np.add.reduceat(new_group.astype(np.int64), first)
    owner = np.where(count == 1, owners[first], -1)
    return _Runs(values[first], members, np.append(first, len(members)), owner, count > CROWD)


def _near(runs: _Runs, distance: int) -> tuple[Indices, NDArray[np.bool_]]:
    """Find the pairs of different hashes within the distance that can belong to different groups.

    Returns:
        int64 (P, 2), positions of the hashes, the smaller first; and bool (U,), the hashes that lie in a bucket
        too large to search.
    """
    unsearched = np.zeros(len(runs.values), dtype=bool)
    codes = [np.zeros(0, np.int64)]
    for band in range(_BANDS):
        keys = ((runs.values >> np.uint64(band * _BITS)) & np.uint64((1 << _BITS) - 1)).astype(np.int64)
        order = np.argsort(keys, kind="stable")
        keys, values, owner, crowd = keys[order], runs.values[order], runs.owner[order], runs.crowd[order]
        starts = np.searchsorted(keys, np.arange((1 << _BITS) + 1))
        large = np.diff(starts) > _LARGEST_BUCKET
        unsearched[order[large[keys]]] = True
        for flip in (0, *(1 << bit for bit in range(_BITS))):
            other = keys ^ flip
            # Every pair once: from the smaller key to the larger, and within a bucket to what comes later.
            begin = starts[other] if flip else np.arange(1, len(keys) + 1)
            searched = (other >= keys) & ~crowd & ~large[keys] & ~large[other]
            for left, right in _ranges(begin, np.where(searched, starts[other + 1] - begin, 0)):
                hit = np.flatnonzero(bit_count(values[left] ^ values[right]) <= distance)
                left, right = left[hit], right[hit]
                hit = np.flatnonzero(((owner[left] != owner[right]) | (owner[left] == -1)) & ~crowd[right])
                one, two = order[left[hit]], order[right[hit]]
                codes.append(np.minimum(one, two) * len(keys) + np.maximum(one, two))
    found = np.unique(np.concatenate(codes))
    return np.stack(np.divmod(found, len(runs.values)), axis=1), unsearched


def _pairs_of_images(runs: _Runs, groups: Indices, near: Indices) -> Indices:
    """Return the sorted pairs (smaller position first) of images of different groups that have the hashes of a pair."""
    # A row for every image of the left hash of every pair.
    portions = list(_ranges(runs.first[near[:, 0]], np.diff(runs.first)[near[:, 0]]))
    pair = np.concatenate([np.zeros(0, np.int64), *(rows for rows, _ in portions)])
    left = np.concatenate([np.zeros(0, np.int64), *(positions for _, positions in portions)])
    right_hash = near[pair, 1]
    begin = np.where(near[pair, 0] == right_hash, left + 1, runs.first[right_hash])
    found = [np.zeros((0, 2), np.int64)]
    for row, right in _ranges(begin, runs.first[right_hash + 1] - begin):
        one, two = runs.members[left[row]], runs.members[right]
        different = groups[one] != groups[two]
        found.append(np.sort(np.stack((one[different], two[different]), axis=1), axis=1))
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _ranges(begin: Indices, sizes: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Give, in portions, every row together with every position of its range.

    Args:
        begin: int64 (R,), first position of the range of each row.
        sizes: int64 (R,), length of the range; 0 or less for none.

    Yields:
        int64 (K,) rows and int64 (K,) positions.
    """
    rows = np.flatnonzero(sizes > 0)
    ends = np.cumsum(sizes[rows])
    done = 0
    while done < len(rows):
        before = int(ends[done - 1]) if done else 0
        stop = max(int(np.searchsorted(ends, before + _PORTION, side="right")), done + 1)
        part = rows[done:stop]
        repeated = np.repeat(np.arange(done, stop), sizes[part])
        inside = np.arange(len(repeated)) + before - (ends[repeated] - sizes[rows[repeated]])
        yield rows[repeated], begin[rows[repeated]] + inside
        done = stop
