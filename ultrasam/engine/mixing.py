"""Sampling from several sources in fixed proportions, in every batch (paper section 3.4: US-43d and SA-1B, half each).

Which source a place of a process's batch takes is a function of the place alone, and the same for all processes;
which sample of the source, a function of (seed, draw of that source). So a run can be continued anywhere, processes
never share a sample, and each source is passed through in permutations, whatever the sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.registry import DATA_SAMPLERS
from numpy.typing import NDArray

from ultrasam.datasets.nesting import indexed_leaves, source_name
from ultrasam.engine.distributed import process_count, process_rank
from ultrasam.engine.sampling import ResumableInfiniteSampler, SampleKey, SeededDataset
from ultrasam.errors import ConfigError

FIELDS = ("source", "dataset", "application")


@DATA_SAMPLERS.register_module()
class MixedSampler(ResumableInfiniteSampler):
    """Endless sampler that takes each source's share in every batch.

    Sources are the parts of a ``ConcatDataset`` (``by="source"``), or the data sets or applications that the images
    name. Where a share of the batch is a whole number of samples, every batch of every process has exactly that number;
    otherwise numbers alternate, and after any number of batches a source is less than one sample a source away from its
    share.

    Args:
        dataset: the training dataset.
        by: "source", "dataset" or "application".
        ratios: shares by order of the sources or by name, any positive numbers; None derives them.
        temperature: where ``ratios`` is None, shares are proportional to size ** (1 / temperature): 1 samples every
            image alike, infinity every source alike. Default: infinity.
        seed: of the permutations; drawn by the first process and shared where None.

    Attributes:
        names: of the sources, in order.
        ratios: their shares, 1 in sum.
    """

    def __init__(
        self,
        dataset: Any,
        by: str = "source",
        ratios: Sequence[float] | Mapping[str, float] | None = None,
        temperature: float = math.inf,
        seed: int | None = None,
    ) -> None:
        super().__init__(dataset, shuffle=True, seed=seed)
        if by not in FIELDS:
            raise ConfigError(f"by must be one of {', '.join(FIELDS)}, got {by!r}")
        if not temperature > 0:
            raise ConfigError(f"temperature must be above 0, got {temperature}")
        members = source_members(dataset, by)
        self.names = list(members)
        self.members = list(members.values())
        if ratios is None:
            sizes = np.array([len(member) for member in self.members], float)
            weights = sizes ** (1 / temperature)
        else:
            weights = _given(ratios, self.names)
        self.ratios: NDArray[np.float64] = weights / weights.sum()

    def __iter__(self) -> Iterator[SampleKey]:
        processes, rank = process_count(), process_rank()
        place = self.position // processes
        counts = counts_before(self.ratios, place)
        orders: dict[int, tuple[int, torch.Tensor]] = {}
        for source in schedule(self.ratios, counts):
            draw = int(counts[source]) * processes + rank
            counts[source] += 1
            number, offset = divmod(draw, len(self.members[source]))
            if orders.get(source, (-1,))[0] != number:
                orders[source] = (number, self.source_order(source, number))
            index = int(self.members[source][int(orders[source][1][offset])])
            yield SampleKey(index, place * processes + rank)
            place += 1

    def source_order(self, source: int, number: int) -> torch.Tensor:
        """Return pass ``number`` over a source: a permutation of its members, int64, by (seed, source, number)."""
        seed = np.random.SeedSequence([abs(int(self.seed)), source, number]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(seed) % 2**63)
        return torch.randperm(len(self.members[source]), generator=generator)

    def describe(self) -> str:
        """Return a line for the log: sources with sizes and shares."""
        parts = zip(self.names, self.members, self.ratios, strict=True)
        return ", ".join(f"{name} {len(member)} images, {100 * share:.1f} %" for name, member, share in parts)


def source_members(dataset: Any, by: str) -> dict[str, NDArray[np.int64]]:
    """Return the indices of each source of a dataset, by name in order of first appearance.

    Raises:
        ConfigError: the dataset is not made of parts, or its images name nothing.
    """
    parts, starts = _parts(dataset)
    if by == "source":
        if len(parts) < 2:
            raise ConfigError(
                "MixedSampler with by='source' needs a ConcatDataset of two sources or more as the training dataset, "
                f"found {type(parts[0]).__name__}; give one, or sample by='dataset'"
            )
        names = _unique([source_name(next(indexed_leaves(part))) for part in parts])
        return {
            name: np.arange(start, start + len(part))
            for name, part, start in zip(names, parts, starts, strict=True)
        }
    members: dict[str, list[int]] = {}
    for part, start in zip(parts, starts, strict=True):
        for index, image in enumerate(_images(part)):
            found = image.dataset if by == "dataset" else str(image.extra.get("application") or "")
            if not found:
                raise ConfigError(f"{image.path} names no {by}, by which to sample; prepare the data again")
            members.setdefault(found, []).append(start + index)
    return {name: np.array(rows, np.int64) for name, rows in members.items()}


def counts_before(ratios: NDArray[np.float64], place: int) -> NDArray[np.int64]:
    """Return how many of the first ``place`` places each source has, in the sequence of ``schedule``.

    Draw k of a source is due at (k + 1/2) / ratio; places go to draws in the order in which they are due.
    """
    # Of the draws that are due before the instant `place - sources`, none can come later than `place`.
    early = max(0.0, place - len(ratios) - 1.0)
    counts = np.maximum(np.floor(early * ratios + 0.5), 0).astype(np.int64)
    steps = schedule(ratios, counts.copy())
    for _ in range(place - int(counts.sum())):
        counts[next(steps)] += 1
    return counts


def schedule(ratios: NDArray[np.float64], counts: NDArray[np.int64]) -> Iterator[int]:
    """Yield the source of each place, endlessly, after the draws in ``counts`` (S,) of S sources.

    Ties, which whole numbers bring about, go to the earlier source; a hair's breadth counts as a tie.
    """
    drawn = counts.astype(np.float64)
    while True:
        due = (drawn + 0.5) / ratios
        source = int(np.argmax(due <= due.min() + 1e-6))
        drawn[source] += 1
        yield source


def _given(ratios: Sequence[float] | Mapping[str, float], names: Sequence[str]) -> NDArray[np.float64]:
    """Return the configured shares in the order of the sources."""
    if isinstance(ratios, Mapping):
        unknown, missing = sorted(set(ratios) - set(names)), [name for name in names if name not in ratios]
        if unknown or missing:
            raise ConfigError(
                f"ratios must name the sources {', '.join(names)}; unknown: {', '.join(unknown) or 'none'}, "
                f"missing: {', '.join(missing) or 'none'}"
            )
        values = [float(ratios[name]) for name in names]
    else:
        values = [float(value) for value in ratios]
        if len(values) != len(names):
            raise ConfigError(f"ratios has {len(values)} numbers for {len(names)} sources ({', '.join(names)})")
    if not all(0 < value < math.inf for value in values):
        raise ConfigError(f"ratios must be positive numbers, got {values}; leave a source out of the dataset instead")
    return np.array(values)


def _parts(dataset: Any) -> tuple[list[Any], list[int]]:
    """Return the parts of a concatenated dataset, or the dataset alone, and the index that each begins at."""
    inner = dataset.dataset if isinstance(dataset, SeededDataset) else dataset
    parts = list(inner.datasets) if hasattr(inner, "datasets") else [inner]
    starts = np.cumsum([0, *(len(part) for part in parts)])[:-1]
    return parts, [int(start) for start in starts]


def _images(part: Any) -> Iterator[Any]:
    """Yield the image records of a part, as often as it repeats them."""
    for leaf in indexed_leaves(part):
        if not hasattr(leaf, "images"):
            raise ConfigError(
                f"{type(leaf).__name__} does not say which data set its images are of; sample by='source'"
            )
        yield from leaf.images


def _unique(names: Sequence[str]) -> list[str]:
    """Number names that occur more than once."""
    return [f"{name}#{names[:i].count(name) + 1}" if names.count(name) > 1 else name for i, name in enumerate(names)]
