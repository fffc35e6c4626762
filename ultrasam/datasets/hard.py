"""Hard-object sampling: images whose objects an earlier test found hard are drawn more often (beyond the paper)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import DATA_SAMPLERS
from numpy.typing import NDArray

from ultrasam.datasets.nesting import leaves
from ultrasam.engine.sampling import ResumableInfiniteSampler
from ultrasam.errors import CheckpointError, ConfigError, DataError
from ultrasam.evaluation.results import read_per_object

# From 0 (nothing right) to 1 (all right).
SCORES = ("dice", "iou", "boundary_iou", "nsd")


@DATA_SAMPLERS.register_module()
class HardObjectSampler(ResumableInfiniteSampler):
    """Endless sampler of which a part of the draws goes to hard images.

    An image is as hard as its hardest object: 1 - score. Of N images, image i has the probability
    ``(1 - share) / N + share * hardness_i / sum(hardness)``; the N draws of a pass hold it N times this, rounded up or
    down so that the mean over passes is exact. A pass is a function of (seed, number of the pass).

    Args:
        dataset: the training dataset.
        results: folder that ``tools/test.py --out`` wrote for every object of the training dataset.
        score: "dice", "iou", "boundary_iou" or "nsd".
        share: of the draws, above 0 and below 1; no image is lost.
        seed: of the passes; drawn by the first process and shared where None.

    Raises:
        ConfigError: a value that does not exist, or a dataset without image records.
        DataError: the results are not of these objects.
    """

    def __init__(
        self, dataset: Any, results: str, score: str = "dice", share: float = 0.5, seed: int | None = None
    ) -> None:
        super().__init__(dataset, shuffle=True, seed=seed)
        if score not in SCORES:
            raise ConfigError(f"score must be one of {', '.join(SCORES)}, got {score!r}")
        if not 0 < share < 1:
            raise ConfigError(f"share must be above 0 and below 1, got {share}")
        hardness = image_hardness(list(image_records(dataset)), Path(results), score)
        if len(hardness) != self.size:
            raise ConfigError(f"HardObjectSampler needs each image once, found {self.size} samples of {len(hardness)}")
        total = hardness.sum()
        hard = hardness / total if total > 0 else np.full(self.size, 1 / self.size)
        self.probabilities: NDArray[np.float64] = (1 - share) / self.size + share * hard
        self.digest = int(hashlib.sha256(self.probabilities.tobytes()).hexdigest()[:15], 16)

    def order(self, number: int) -> torch.Tensor:
        """Return pass ``number``: N indices, int64, some of them several times."""
        words = np.random.SeedSequence([abs(int(self.seed)), number]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(words[0]) % 2**63)
        # Equidistant marks on the line of the probabilities meet each image floor or ceil of its share times.
        start = float(torch.rand(1, generator=generator, dtype=torch.float64))
        ends = self.size * np.cumsum(self.probabilities)
        met = np.searchsorted(ends, np.arange(self.size) + start, side="right").clip(max=self.size - 1)
        return torch.from_numpy(met)[torch.randperm(self.size, generator=generator)]

    def state_dict(self) -> dict[str, int]:
        """Return what is needed to continue, with a digest of the probabilities."""
        return {**super().state_dict(), "probabilities": self.digest}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where ``state`` was taken.

        Raises:
            CheckpointError: it was taken with other data, results or shares.
        """
        if state.get("probabilities") != self.digest:
            raise CheckpointError(
                "the checkpoint was trained with other results or another share of hard objects, so its sampling "
                "cannot be continued; give the same results, or start a new run from it with --weights"
            )
        super().load_state_dict(state)


def image_records(dataset: Any) -> Iterator[Any]:
    """Yield the image records of a dataset, each once, in the order of the indices.

    Raises:
        ConfigError: a part has none.
    """
    for leaf in leaves(dataset):
        if not hasattr(leaf, "images"):
            raise ConfigError(f"HardObjectSampler needs PromptedCocoDataset, found {type(leaf).__name__}")
        yield from leaf.images


def image_hardness(images: Sequence[Any], results: Path, score: str) -> NDArray[np.float64]:
    """Return how hard each image is (N,): 1 - score of its worst object, 0 without objects.

    Objects are known by data set, image id, name of the image and annotation id; several prompts of one (repeats)
    count with their mean.

    Raises:
        DataError: an object is not in the results, or has no score there.
    """
    found: dict[tuple[str, ...], list[float]] = {}
    for row in read_per_object(results):
        found.setdefault(row.key[:4], []).append(row.values[score])
    hardness = np.zeros(len(images))
    for index, image in enumerate(images):
        for one in image.objects:
            key = (str(image.dataset), str(image.id), image.path.name, str(one.annotation_id))
            value = float(np.mean(found.get(key, [math.nan])))
            if not 0 <= value <= 1:
                what = f"has no {score} there" if key in found else "is not there"
                raise DataError(
                    f"{results / 'per_object.csv'} is not of this training list: object {one.annotation_id} of "
                    f"{image.path} {what}; test on the training list (docs/studies.md)"
                )
            hardness[index] = max(hardness[index], 1 - value)
    return hardness
