"""Embeddings kept on disk: the same numbers with and without, the right key, bounded, and never half a file."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from mini_batches import batch_of, small_detector
from torch import nn

from ultrasam.errors import ConfigError, DataError
from ultrasam.modeling.sam import Preprocessing
from ultrasam.models.embedding_cache import EmbeddingCache, weights_hash

IMAGE = torch.arange(3 * 6 * 8, dtype=torch.uint8).reshape(3, 6, 8)
EMBEDDING = torch.linspace(-5, 5, 4 * 2 * 2).reshape(4, 2, 2).half()


def encoder(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def cache_in(folder, seed=0, max_bytes=10**6, **preprocessing):
    return EmbeddingCache(folder, encoder(seed), Preprocessing(**preprocessing), max_bytes)


def trained(detector, steps=4):
    """Losses of some steps over two batches again and again, and the predictions afterwards."""
    optimizer = torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], 1e-3)
    detector.train()
    losses = []
    for number in range(steps):
        data = batch_of(2, 1, first_seed=2 * (number % 2))
        optimizer.zero_grad()
        found = detector(**detector.data_preprocessor(data, True), mode="loss")
        sum(found.values()).backward()
        optimizer.step()
        losses.append({name: value.item() for name, value in found.items()})
    detector.eval()
    samples = detector.test_step(batch_of(2, 0, 3))
    return losses, [sample.pred_instances for sample in samples]


def test_training_and_predictions_are_bitwise_those_without_cache(tmp_path):
    losses, expected = trained(small_detector(freeze=["image_encoder"]))
    for run in range(2):
        detector = small_detector(freeze=["image_encoder"], cache_dir=str(tmp_path))
        found_losses, found = trained(detector)
        assert found_losses == losses
        for one, two in zip(found, expected, strict=True):
            assert torch.equal(one.masks, two.masks) and torch.equal(one.scores, two.scores)
        # 4 images, each met twice in training; the test has one of them and two others; then all are known.
        hits, misses = detector.cache.hits, detector.cache.misses
        assert (hits, misses) == ((5, 6) if run == 0 else (11, 0))
    assert len(list(tmp_path.iterdir())) == 6


METHODS = {"full": {}, "lora": {"rank": 2}, "med_sa": {}, "samus": {"image_size": 64}}


@pytest.mark.parametrize("method", METHODS)
def test_a_test_may_keep_what_any_encoder_gives(tmp_path, method):
    arguments = {"method": method, "adapter": METHODS[method]}
    plain, kept = (small_detector(**arguments, **more).eval() for more in ({}, {"cache_dir": str(tmp_path)}))
    images = plain.data_preprocessor(batch_of(0, 0))["inputs"]
    images = [image[:, :64, :64] for image in images]
    with torch.no_grad():
        # Kept in half precision.
        expected = plain.extract_feat(images)
        torch.testing.assert_close(kept.extract_feat(images), expected, rtol=1e-3, atol=1e-3)
        assert torch.equal(kept.extract_feat(images), kept.extract_feat(images))
    assert kept.cache.misses == 2 and kept.cache.hits == 4


def test_options_that_are_no_weights_are_part_of_the_key(tmp_path):
    images = [torch.zeros(3, 64, 64, dtype=torch.uint8)]
    for scale in (0.5, 0.25):
        adapter = {"scale": scale}
        detector = small_detector(method="med_sa", adapter=adapter, cache_dir=str(tmp_path)).eval()
        with torch.no_grad():
            detector.extract_feat(images)
        assert detector.cache.hits == 0


@pytest.mark.parametrize("arguments", [{}, {"method": "full"}, {"method": "lora"}])
def test_training_an_encoder_whose_embeddings_are_kept_is_refused(tmp_path, arguments):
    detector = small_detector(cache_dir=str(tmp_path), **arguments)
    with pytest.raises(ConfigError, match="add 'image_encoder' to freeze"):
        detector.init_weights()


def test_a_batch_does_not_change_an_embedding():
    detector = small_detector(freeze=["image_encoder"])
    images = detector.data_preprocessor(batch_of(0, 0, 0))["inputs"]
    together = detector.extract_feat(images)
    for row, image in enumerate(images):
        assert torch.equal(detector.extract_feat([image])[0], together[row])
    exact = detector.sam.encode(detector.sam.preprocessing.batch(images))
    torch.testing.assert_close(together, exact, rtol=1e-3, atol=1e-3)


def test_loading_other_weights_gives_other_embeddings(tmp_path):
    detector = small_detector(freeze=["image_encoder"], cache_dir=str(tmp_path))
    images = detector.data_preprocessor(batch_of(0))["inputs"]
    first = detector.extract_feat(images)
    other = small_detector(seed=1, freeze=["image_encoder"])
    detector.load_state_dict(other.state_dict())
    assert torch.equal(detector.extract_feat(images), other.extract_feat(images))
    assert not torch.equal(detector.extract_feat(images), first)
    assert len(list(tmp_path.iterdir())) == 2


def test_what_comes_back_is_what_was_stored(tmp_path):
    cache = cache_in(tmp_path)
    assert cache.get(IMAGE) is None
    cache.put(IMAGE, EMBEDDING)
    assert torch.equal(cache.get(IMAGE), EMBEDDING) and cache.get(IMAGE).dtype == torch.float16
    assert torch.equal(cache_in(tmp_path).get(IMAGE), EMBEDDING)
    assert (cache.hits, cache.misses) == (2, 1)


def test_key_holds_image_weights_and_preprocessing(tmp_path):
    cache = cache_in(tmp_path)
    changed = IMAGE.clone()
    changed[2, 5, 7] += 1
    paths = [
        cache.path(IMAGE),
        cache.path(IMAGE.flip(-1)),
        cache.path(changed),
        cache.path(IMAGE.reshape(3, 8, 6)),
        cache_in(tmp_path, seed=1).path(IMAGE),
        cache_in(tmp_path, scaling="min_max").path(IMAGE),
        cache_in(tmp_path, mode="squash").path(IMAGE),
    ]
    assert len(set(paths)) == len(paths)
    assert cache_in(tmp_path).path(IMAGE.clone()) == paths[0]
    # A view with the same values is the same image.
    assert cache.path(IMAGE.permute(1, 2, 0).contiguous().permute(2, 0, 1)) == paths[0]


def test_weights_hash_sees_buffers_and_names():
    first, second = encoder(), encoder()
    assert weights_hash(first) == weights_hash(second)
    second[1].running_mean[0] += 1e-3
    assert weights_hash(first) != weights_hash(second)
    assert weights_hash(nn.ModuleDict({"a": first})) != weights_hash(nn.ModuleDict({"b": first}))


def test_folder_stays_below_its_bound_and_the_oldest_go_first(tmp_path):
    images = [IMAGE + number for number in range(12)]
    one = cache_in(tmp_path / "one")
    one.put(images[0], EMBEDDING)
    size = sum(file.stat().st_size for file in (tmp_path / "one").iterdir())
    folder = tmp_path / "many"
    cache = cache_in(folder, max_bytes=4 * size + 1)
    for number, image in enumerate(images):
        cache.put(image, EMBEDDING)
        os.utime(cache.path(image), (number, number))
        assert sum(file.stat().st_size for file in folder.iterdir()) <= 4 * size + 1
    assert [cache.get(image) is not None for image in images] == [False] * 8 + [True] * 4
    # A cache that finds a folder beyond its bound makes room as well.
    smaller = cache_in(folder, max_bytes=2 * size)
    smaller.put(images[0], EMBEDDING)
    assert [smaller.get(image) is not None for image in (images[0], images[10], images[11])] == [True, False, True]


def test_an_embedding_beyond_the_bound_is_not_kept(tmp_path):
    cache = cache_in(tmp_path, max_bytes=20)
    cache.put(IMAGE, EMBEDDING)
    assert not list(tmp_path.iterdir()) and cache.get(IMAGE) is None
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        cache_in(tmp_path, max_bytes=0)


def test_files_that_another_process_removed_are_no_error(tmp_path, monkeypatch):
    cache = cache_in(tmp_path, max_bytes=400)
    cache.put(IMAGE, EMBEDDING)
    ghost = tmp_path / "gone.npy"
    glob = type(tmp_path).glob
    monkeypatch.setattr(type(tmp_path), "glob", lambda self, pattern: [ghost, *glob(self, pattern)])
    cache.put(IMAGE + 1, EMBEDDING)
    cache.put(IMAGE + 2, EMBEDDING)
    assert torch.equal(cache.get(IMAGE + 2), EMBEDDING)


@pytest.mark.parametrize("damage", ["empty", "short", "header", "values", "other"])
def test_a_damaged_file_counts_as_absent_and_is_made_again(tmp_path, damage):
    cache = cache_in(tmp_path)
    cache.put(IMAGE, EMBEDDING)
    path = cache.path(IMAGE)
    data = bytearray(path.read_bytes())
    if damage in ("header", "values"):
        data[20 if damage == "header" else -10] ^= 1
    path.write_bytes({"empty": b"", "short": data[:-7], "other": b"PK\x03\x04 no array"}.get(damage, bytes(data)))
    assert cache.get(IMAGE) is None and not path.exists()
    cache.put(IMAGE, EMBEDDING)
    assert torch.equal(cache.get(IMAGE), EMBEDDING)


def test_every_damaged_byte_is_noticed(tmp_path):
    cache = cache_in(tmp_path)
    cache.put(IMAGE, EMBEDDING)
    path = cache.path(IMAGE)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in range(len(whole)):
        data = bytearray(whole)
        data[position] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(data))
        assert cache.get(IMAGE) is None, position


@pytest.mark.parametrize("moment", ["write_bytes", "replace"])
def test_a_write_that_is_interrupted_leaves_nothing(tmp_path, monkeypatch, moment):
    cache = cache_in(tmp_path)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), moment, killed)
        with pytest.raises(KeyboardInterrupt):
            cache.put(IMAGE, EMBEDDING)
    assert not list(tmp_path.iterdir())
    assert cache.get(IMAGE) is None and cache.size == 0


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    cache = cache_in(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(tmp_path), "write_bytes", full)
    with pytest.raises(DataError, match=r"cannot be written .*No space left on device"):
        cache.put(IMAGE, EMBEDDING)
    assert not list(tmp_path.iterdir())


def test_a_process_killed_while_writing_leaves_no_embedding(tmp_path):
    """A real kill: no Python clean-up runs, so a temporary file may stay, but nothing that would be read."""
    script = """
import os, sys, torch
from pathlib import Path
from ultrasam.modeling.sam import Preprocessing
from ultrasam.models.embedding_cache import EmbeddingCache
Path.write_bytes = lambda self, data: (open(self, "wb", 0).write(data[:50]), os.kill(os.getpid(), 9))
cache = EmbeddingCache(sys.argv[1], torch.nn.Conv2d(3, 4, 3), Preprocessing())
cache.put(torch.zeros(3, 6, 8, dtype=torch.uint8), torch.zeros(4, 2, 2))
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=120)
    assert done.returncode == -9
    assert not list(tmp_path.glob("*.npy")) and len(list(tmp_path.iterdir())) == 1
    cache = cache_in(tmp_path)
    assert cache.get(IMAGE) is None
    cache.put(IMAGE, EMBEDDING)
    assert torch.equal(cache.get(IMAGE), EMBEDDING)
