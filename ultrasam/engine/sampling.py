"""Sampling that can be stopped and continued anywhere, with any number of processes and loader workers.

Two rules make a resumed run equal to an uninterrupted one. The order of the samples is a function of (seed,
position), so continuing needs the position only and no data is loaded again. The randomness of one sample is
a function of (seed, draw, index), not of the loader worker that happens to prepare it:
:class:`ResumableInfiniteSampler` yields :class:`SampleKey`, an ``int`` that carries the draw, and
:class:`SeededDataset` (put around every dataset by the runner) seeds Python's, NumPy's and PyTorch's
generators from it while the sample is made. Transforms may thus use ``numpy.random`` as usual, or ask
:func:`sample_rng`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.dist import sync_random_seed
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import Dataset, Sampler

from ultrasam.engine.distributed import process_count, process_rank
from ultrasam.errors import CheckpointError, ConfigError


class SampleKey(int):
    """Index of a sample that remembers which draw of the run it is.

    It is an ``int`` in every respect, so that any dataset accepts it; subtracting an offset, as concatenated
    datasets do, keeps the draw.

    Args:
        index: Index into the dataset.
        draw: How many samples the run had drawn before this one, over all processes.
    """

    draw: int

    def __new__(cls, index: int, draw: int = 0) -> SampleKey:
        """Make the key; int is immutable, so this cannot wait for ``__init__``."""
        key = super().__new__(cls, index)
        key.draw = int(draw)
        return key

    def __sub__(self, other: int) -> SampleKey:
        return SampleKey(int(self) - int(other), self.draw)

    def __getnewargs__(self) -> tuple[int, int]:  # type: ignore[override]
        return int(self), self.draw

    def __repr__(self) -> str:
        return f"SampleKey({int(self)}, draw={self.draw})"


def sample_rng(seed: int, index: int) -> np.random.Generator:
    """Return the random generator of one sample: the same for the same (seed, draw, index), whoever asks.

    Args:
        seed: Seed of the run.
        index: Plain index (draw 0: validation is the same at every epoch) or :class:`SampleKey`.
    """
    return np.random.default_rng([abs(int(seed)), getattr(index, "draw", 0), abs(int(index))])


@contextmanager
def sample_randomness(seed: int, index: int) -> Iterator[None]:
    """Seed the global generators from (seed, draw, index) and put them back afterwards."""
    numbers = sample_rng(seed, index).integers(0, 2**32, size=3, dtype=np.uint64)
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch_state = torch.default_generator.get_state()
    random.seed(int(numbers[0]))
    np.random.seed(int(numbers[1]))
    torch.default_generator.manual_seed(int(numbers[2]))
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.default_generator.set_state(torch_state)


class SeededDataset(Dataset[Any]):
    """View of a dataset in which every sample has its own reproducible randomness.

    Args:
        dataset: Any map-style dataset; its attributes stay reachable through this one.
        seed: Seed of the run.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __getattr__(self, name: str) -> Any:
        # "dataset" itself is missing while pickle rebuilds this object in a spawned worker.
        if name == "dataset" or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> SeededDataset:
        # MMEngine copies the loader's configuration, which holds this object; the annotations are not
        # configuration.
        return self

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        with sample_randomness(self.seed, index):
            return self.dataset[index]


@DATA_SAMPLERS.register_module()
class ResumableInfiniteSampler(Sampler[SampleKey]):
    """Endless sampler for training whose order is a function of (seed, position).

    The run is a sequence of positions 0, 1, 2, ...; pass ``k`` over the data is a new permutation. Of ``n``
    processes, process ``r`` takes the positions congruent to ``r``, so a global batch holds the same samples
    however many processes share it. Subclasses change the order of a pass by overriding :meth:`order`.

    Args:
        dataset: The dataset, of which only the length is used.
        shuffle: Permute each pass; otherwise each pass is 0, 1, ..., n-1.
        seed: Seed of the permutations; drawn by the first process and shared where None.

    Attributes:
        position: Samples used by training so far, over all processes. The training loop advances it;
            iteration starts there.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None) -> None:
        self.size = len(dataset)
        if self.size == 0:
            raise ConfigError("the training dataset is empty, so nothing can be sampled; check its ann_file")
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.position = 0

    @property
    def pass_length(self) -> int:
        """Number of draws in one pass."""
        return self.size

    def order(self, number: int) -> torch.Tensor:
        """Return the sample indices of one pass.

        Args:
            number: Which pass, from 0.

        Returns:
            int64 tensor (``pass_length``,); must depend on nothing but ``self.seed`` and ``number``.
        """
        if not self.shuffle:
            return torch.arange(self.size)
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + number) % 2**63)
        return torch.randperm(self.size, generator=generator)

    def __iter__(self) -> Iterator[SampleKey]:
        position = self.position + process_rank()
        step, length = process_count(), self.pass_length
        current, order = -1, torch.empty(0)
        while True:
            number, offset = divmod(position, length)
            if number != current:
                current, order = number, self.order(number)
            yield SampleKey(int(order[offset]), position)
            position += step

    def __len__(self) -> int:
        """Samples of this process in one pass."""
        return math.ceil(self.pass_length / process_count())

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: the pass follows from the position (MMEngine's samplers have this method)."""

    def advance(self, count: int) -> None:
        """Record that training used ``count`` more samples, over all processes."""
        self.position += count

    def state_dict(self) -> dict[str, int]:
        """Return what is needed to continue: position, seed and the size of the dataset."""
        return {"position": self.position, "seed": self.seed, "size": self.size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where ``state`` was taken; no data is loaded.

        Raises:
            CheckpointError: If the dataset has another number of samples than when the state was taken.
        """
        if state["size"] != self.size:
            raise CheckpointError(
                f"the checkpoint was trained on {state['size']} samples but the training dataset now has "
                f"{self.size}, "
                "so its sampling cannot be continued; start a new run from it with --weights"
            )
        self.seed = state["seed"]
        self.position = state["position"]
