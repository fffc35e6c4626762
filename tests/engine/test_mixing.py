"""Mixed sampling: exact shares in every batch, permutations, no sample twice, and runs that continue identically."""

import math
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ultrasam.engine.mixing as mixing
from ultrasam.engine.mixing import MixedSampler, counts_before, schedule
from ultrasam.errors import ConfigError


class Part(list):
    """A source of some size; its items are told apart by their source."""


class Parts:
    """What a ``ConcatDataset`` is to a sampler."""

    def __init__(self, *sizes):
        self.datasets = [Part(range(size)) for size in sizes]

    def __len__(self):
        return sum(len(part) for part in self.datasets)

    def source_of(self, index):
        return int(np.searchsorted(np.cumsum([len(part) for part in self.datasets]), index, side="right"))


def drawn(monkeypatch, sampler, count, rank=0, processes=1):
    monkeypatch.setattr(mixing, "process_rank", lambda: rank)
    monkeypatch.setattr(mixing, "process_count", lambda: processes)
    return list(islice(iter(sampler), count))


@pytest.mark.parametrize(("sizes", "ratios", "batch"), [
    ((1000, 3), (1, 1), 8), ((5, 7, 11), (1, 2, 1), 4), ((187, 11), (0.75, 0.25), 12), ((10, 10, 10), (5, 3, 2), 10),
])  # fmt: skip
def test_every_batch_of_every_process_has_the_exact_shares(monkeypatch, sizes, ratios, batch):
    dataset = Parts(*sizes)
    expected = [batch * ratio / sum(ratios) for ratio in ratios]
    for rank in range(3):
        rows = drawn(monkeypatch, MixedSampler(dataset, ratios=ratios, seed=1), 50 * batch, rank, 3)
        for start in range(0, len(rows), batch):
            found = [dataset.source_of(row) for row in rows[start : start + batch]]
            assert [found.count(source) for source in range(len(sizes))] == expected


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.01, 100), min_size=1, max_size=30), st.integers(0, 2000)
)
def test_counts_are_those_of_the_sequence_and_near_their_share(ratios, place):
    shares = np.array(ratios) / sum(ratios)
    counts = np.zeros(len(shares), np.int64)
    for source in islice(schedule(shares, counts.copy()), place):
        counts[source] += 1
    assert counts.sum() == place
    assert np.array_equal(counts_before(shares, place), counts)
    assert np.abs(counts - place * shares).max() <= len(shares)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=4), st.integers(1, 4), st.integers(0, 2**31),
    st.lists(st.floats(0.1, 5), min_size=4, max_size=4),
)  # fmt: skip
def test_each_pass_over_a_source_is_a_permutation_shared_out_between_processes(sizes, processes, seed, ratios):
    dataset = Parts(*sizes)
    with pytest.MonkeyPatch.context() as patch:
        by_process = [
            drawn(patch, MixedSampler(dataset, ratios=ratios[: len(sizes)], seed=seed), 120, rank, processes)
            for rank in range(processes)
        ]
    # Places go on together in all processes: place 0 of each, place 1 of each, ...
    together = [row for rows in zip(*by_process, strict=True) for row in rows]
    assert [row.draw for row in together] == list(range(len(together)))
    starts = np.cumsum([0, *sizes])
    for source, size in enumerate(sizes):
        mine = [int(row) - starts[source] for row in together if dataset.source_of(row) == source]
        for start in range(0, len(mine) - size + 1, size):
            assert sorted(mine[start : start + size]) == list(range(size))


@pytest.mark.parametrize("stop", [0, 1, 7, 40, 333])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_continues_with_the_identical_sequence(monkeypatch, stop, processes):
    dataset = Parts(40, 7, 13)
    arguments = dict(ratios=(0.5, 0.2, 0.3), seed=9)
    whole = drawn(monkeypatch, MixedSampler(dataset, **arguments), 600, 0, processes)
    first = MixedSampler(dataset, **arguments)
    first.advance(stop * processes)
    second = MixedSampler(dataset, ratios=(0.5, 0.2, 0.3), seed=0)
    second.load_state_dict(first.state_dict())
    rest = drawn(monkeypatch, second, 600 - stop, 0, processes)
    assert [(int(row), row.draw) for row in rest] == [(int(row), row.draw) for row in whole[stop:]]


def test_a_global_batch_is_the_same_for_any_number_of_processes(monkeypatch):
    dataset = Parts(90, 7)
    alone = drawn(monkeypatch, MixedSampler(dataset, seed=3), 48, 0, 1)
    shared = [drawn(monkeypatch, MixedSampler(dataset, seed=3), 12, rank, 4) for rank in range(4)]
    together = sorted(int(row) for rows in shared for row in rows)
    assert together == sorted(int(row) for row in alone)


def test_temperature_goes_from_every_image_alike_to_every_source_alike():
    dataset = Parts(90, 10)
    assert np.allclose(MixedSampler(dataset, temperature=1, seed=0).ratios, [0.9, 0.1])
    assert np.allclose(MixedSampler(dataset, temperature=2, seed=0).ratios, np.sqrt([90, 10]) / np.sqrt([90, 10]).sum())
    assert np.allclose(MixedSampler(dataset, seed=0).ratios, 0.5)


class Images(Part):
    """A source whose images name data set and application."""

    def __init__(self, *datasets):
        super().__init__(range(len(datasets)))
        image = type("Image", (), {})
        self.images = []
        for name in datasets:
            record = image()
            record.dataset, record.extra, record.path = name, {"application": name[:1]}, name
            self.images.append(record)


def test_sampling_by_data_set_and_application(monkeypatch):
    dataset = Images(*["a1"] * 97, "a2", "b1", "b1")
    rows = drawn(monkeypatch, MixedSampler(dataset, by="dataset", seed=0), 30)
    names = [dataset.images[row].dataset for row in rows]
    assert [names.count(name) for name in ("a1", "a2", "b1")] == [10, 10, 10]
    rows = drawn(monkeypatch, MixedSampler(dataset, by="application", ratios={"a": 3, "b": 1}, seed=0), 40)
    assert sum(dataset.images[row].dataset == "b1" for row in rows) == 10


def test_refusals():
    two = Parts(3, 4)
    for arguments, words in [
        (dict(by="organ"), "by must be one of"), (dict(temperature=0), "above 0"),
        (dict(ratios=(1,)), "1 numbers for 2"),
        (dict(ratios=(1, 0)), "positive"), (dict(ratios=(1, math.inf)), "positive"),
        (dict(ratios={"x": 1}), "unknown: x"),
    ]:  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            MixedSampler(two, seed=0, **arguments)
    with pytest.raises(ConfigError, match="needs a ConcatDataset"):
        MixedSampler(Part(range(3)), seed=0)
    with pytest.raises(ConfigError, match="names no application"):
        MixedSampler(Images(""), by="application", seed=0)
