"""Near duplicates: all pairs that a comparison of everything with everything finds, and none that only look alike."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.collection import near_duplicates
from data_prep.collection.near_duplicates import CROWD, DISTANCE, bit_count, bit_count_by_table, find_candidates
from data_prep.collection.pictures import read_thumbnails, same_picture
from ultrasam.errors import DataError
from ultrasam.io.images import read_image
from ultrasam.io.perceptual_hash import perceptual_hash

BITS_32 = 0x0F0F_0F0F_F0F0_F0F0


def brute_force(hashes: list[int], groups: list[int], distance: int) -> list[tuple[int, int]]:
    useful = [16 <= value.bit_count() <= 48 for value in hashes]
    return [(i, j) for j in range(len(hashes)) for i in range(j)
            if useful[i] and useful[j] and groups[i] != groups[j] and (hashes[i] ^ hashes[j]).bit_count() <= distance]


def search(hashes: list[int], groups: list[int], distance: int = DISTANCE):
    return find_candidates(np.array(hashes, np.uint64), np.array(groups, np.int64), distance)


@st.composite
def collections(draw) -> tuple[list[int], list[int]]:
    """A few pictures, each several times with some bits changed; no group has more than four images."""
    bases = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
    hashes = []
    for _ in range(draw(st.integers(1, 24))):
        value = draw(st.sampled_from(bases))
        for bit in draw(st.lists(st.integers(0, 63), max_size=5)):
            value ^= 1 << bit
        hashes.append(value)
    groups = [number // draw(st.integers(1, 4)) for number in range(len(hashes))]
    return hashes, groups


@settings(max_examples=50, deadline=None)
@given(collections(), st.integers(0, 7))
def test_finds_what_comparing_everything_finds(collection, distance):
    hashes, groups = collection
    groups = [group if groups[:number].count(group) < 4 else 100 + number for number, group in enumerate(groups)]
    found = search(hashes, groups, distance)
    assert sorted(map(tuple, found.pairs.tolist())) == sorted(brute_force(hashes, groups, distance))
    assert found.distances.tolist() == [(hashes[i] ^ hashes[j]).bit_count() for i, j in found.pairs.tolist()]
    assert found.blank == sum(not 16 <= value.bit_count() <= 48 for value in hashes)
    assert found.crowded == 0


def test_a_larger_distance_is_refused_because_it_would_not_be_complete():
    with pytest.raises(ValueError, match="0 to 7 bits was expected, found 8"):
        search([BITS_32, BITS_32], [0, 1], 8)


def test_bits_are_counted_the_same_with_every_numpy():
    values = np.random.default_rng(0).integers(0, 2**64 - 1, (50, 3), dtype=np.uint64, endpoint=True)
    truth = [[value.bit_count() for value in row] for row in values.tolist()]
    assert bit_count(values).tolist() == bit_count_by_table(values).tolist() == truth


def test_many_images_are_searched_at_once_and_the_planted_pairs_found():
    rng = np.random.default_rng(1)
    bits = np.argsort(rng.random((20_000, 64)), axis=1) < 32
    # Ultrasound images agree in some of their lowest frequencies.
    bits[:, :5] = rng.random((20_000, 5)) < 0.95
    hashes = np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)
    flips = (1 << rng.integers(0, 64, (50, 6)).astype(object)).sum(axis=1)
    planted = [(100 + k, 10_000 + k) for k in range(50)]
    for (one, two), flip in zip(planted, flips, strict=True):
        hashes[two] = int(hashes[one]) ^ int(flip)
    found = find_candidates(hashes, np.arange(20_000))
    near = {(i, j) for i, j in planted if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= DISTANCE
            and 16 <= int(hashes[j]).bit_count() <= 48}
    assert len(near) > 40
    assert near <= set(map(tuple, found.pairs.tolist()))
    assert found.distances.max() <= DISTANCE


def test_the_first_four_frames_stand_for_a_group():
    found = search([BITS_32] * 10, [0] * 9 + [1])
    assert found.pairs.tolist() == [[0, 9], [1, 9], [2, 9], [3, 9]]


def test_near_hashes_that_several_groups_share_are_compared_too():
    found = search([BITS_32, BITS_32, BITS_32 ^ 1, BITS_32 ^ 1], [0, 1, 0, 1])
    assert found.pairs.tolist() == [[0, 1], [0, 3], [1, 2], [2, 3]]
    assert found.distances.tolist() == [0, 1, 1, 0]


def test_hashes_that_say_nothing_join_nothing():
    for empty in (np.full((40, 50, 3), 90, np.uint8), np.zeros((40, 50, 3), np.uint8)):
        assert int(perceptual_hash(empty), 16).bit_count() < 8
    blank = search([1 << 63, 1 << 63, 2**64 - 1, 2**64 - 1, BITS_32], list(range(5)))
    assert (len(blank.pairs), blank.blank, blank.crowded) == (0, 4, 0)
    shared = search([BITS_32] * CROWD, list(range(CROWD)))
    assert (len(shared.pairs), shared.crowded) == (CROWD * (CROWD - 1) // 2, 0)
    crowd = search([BITS_32] * (CROWD + 1) + [BITS_32 ^ 1], list(range(CROWD + 2)))
    assert (len(crowd.pairs), crowd.crowded) == (0, CROWD + 1)
    none = search([0, 2**64 - 1], [0, 1])
    assert (len(none.pairs), none.blank) == (0, 2)


def test_buckets_too_large_to_search_are_reported(monkeypatch):
    hashes = [BITS_32 ^ (k << 48) for k in range(8)]
    assert len(search(hashes, list(range(8))).pairs) == 28
    monkeypatch.setattr(near_duplicates, "_LARGEST_BUCKET", 3)
    found = search(hashes, list(range(8)))
    assert found.crowded == 8
    # The band that tells them apart is still searched.
    assert 0 < len(found.pairs) < 28


def speckle(seed: int, height: int = 300, width: int = 400, *, uneven: float = 0.45) -> np.ndarray:
    """A sector with a dark cavity, the same for every seed; only the speckle differs. uint8 H x W x 3."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    depth = np.hypot(columns - width / 2, rows + 10)
    sector = (depth < 0.97 * height) & (np.abs(np.arctan2(columns - width / 2, rows + 10)) < 0.6)
    hole = 1 - 0.95 * np.exp(-((((columns - width / 2) / 60) ** 2 + ((rows - 160) / 70) ** 2) ** 2))
    # Tissue is uneven, which in a thumbnail of 32 pixels gives a contrast of 0.15 or so, as in real images.
    tissue = sum(cv2.GaussianBlur(rng.normal(0, 1, (height, width)).astype(np.float32), (0, 0), size) * size
                 for size in (2, 5, 8))
    grey = np.clip(90 * hole * (1 + uneven * tissue), 0, 255) * sector
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)


def differ(one: np.ndarray, two: np.ndarray) -> int:
    return (int(perceptual_hash(one), 16) ^ int(perceptual_hash(two), 16)).bit_count()


def compare(folder: Path, one: np.ndarray, two: np.ndarray) -> bool:
    for name, pixels in (("one", one), ("two", two)):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    thumbnails = read_thumbnails([folder / "one.png", folder / "two.png"], 1)
    return bool(same_picture(thumbnails, np.array([[0, 1]]))[0])


def jpeg(pixels: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=40)
    return np.array(Image.open(buffer))


COPIES = {
    "smaller": lambda image: cv2.resize(image, (200, 150), interpolation=cv2.INTER_AREA),
    "square": lambda image: cv2.resize(image, (128, 128), interpolation=cv2.INTER_LINEAR),
    "square by nearest neighbour": lambda image: cv2.resize(image, (128, 128), interpolation=cv2.INTER_NEAREST),
    "larger": lambda image: cv2.resize(image, (560, 420), interpolation=cv2.INTER_CUBIC),
    "jpeg": jpeg,
    "brighter": lambda image: (255 * (image / 255.0) ** 0.7).astype(np.uint8),
    "weaker": lambda image: (image * 0.7).astype(np.uint8),
}


@pytest.mark.parametrize("change", COPIES)
def test_copies_are_the_same_picture(tmp_path, change):
    for seed in (1, 2):
        image = speckle(seed)
        copy = np.ascontiguousarray(COPIES[change](image))
        assert differ(image, copy) <= DISTANCE
        assert compare(tmp_path, image, copy)


def test_similar_sectors_with_near_hashes_are_different_pictures(tmp_path):
    images = [speckle(seed, uneven=0.25) for seed in (1, 2, 3, 6, 13, 16)]
    hashes = [int(perceptual_hash(image), 16) for image in images]
    pairs = [(i, j) for i in range(6) for j in range(i)]
    # Without pairs of near hashes among them the test would say little.
    assert len(search(hashes, list(range(6))).pairs) >= 2
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    assert not same_picture(read_thumbnails(paths, 1), np.array(pairs)).any()


def test_writing_neither_makes_pictures_the_same_nor_tells_them_apart(tmp_path):
    def written(image: np.ndarray) -> np.ndarray:
        return cv2.putText(image.copy(), "PHILIPS L12-3", (100, 250), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 2)

    for seed in (1, 2, 3):
        assert compare(tmp_path, speckle(seed), written(speckle(seed)))
    assert not compare(tmp_path, written(speckle(1)), written(speckle(2)))


def test_pictures_of_hardly_any_light_must_be_equal(tmp_path):
    dark = np.zeros((64, 64, 3), np.uint8)
    dark[30:34, 30:34] = 200
    moved = np.roll(dark, 8, axis=1)
    assert compare(tmp_path, dark, dark)
    assert not compare(tmp_path, dark, moved)


def test_pairs_are_compared_one_by_one(tmp_path):
    images = [speckle(1), speckle(2), jpeg(speckle(1)), jpeg(speckle(2))]
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    pairs = np.array([[0, 1], [0, 2], [1, 3], [2, 3], [0, 3]])
    assert same_picture(read_thumbnails(paths, 2), pairs).tolist() == [False, True, True, False, False]


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png does not exist"):
        read_thumbnails([tmp_path / "gone.png"], 1)


@pytest.mark.shared
def test_real_images_of_one_lesion_are_found(shared):
    """BUSI numbers neighbouring frames of one patient as if they were of several."""
    folder = shared / "data/busi/Dataset_BUSI_with_GT/malignant"
    paths = [folder / f"malignant ({number}).png" for number in range(1, 31)]
    hashes = [int(perceptual_hash(read_image(path)), 16) for path in paths]
    found = search(hashes, list(range(len(paths))))
    same = same_picture(read_thumbnails(paths, 1), found.pairs)
    names = {(int(i) + 1, int(j) + 1) for i, j in found.pairs[same]}
    assert names == {(4, 5), (8, 9), (7, 8), (7, 9)}
