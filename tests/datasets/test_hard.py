"""Hard-object sampling: exact shares, the same passes again, and no results of other objects."""

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ultrasam.datasets.hard import HardObjectSampler, image_hardness
from ultrasam.engine.sampling import SeededDataset
from ultrasam.errors import CheckpointError, ConfigError, DataError
from ultrasam.evaluation.files import COLUMNS

# Dice of the objects of each image.
DICE = [[0.9, 0.4], [1.0], [], [0.8], [0.2, 0.2], [1.0]]
HARDNESS = [0.6, 0, 0, 0.2, 0.8, 0]


class Images:
    """What a dataset is to the sampler."""

    def __init__(self, first, counts):
        self.images = [
            SimpleNamespace(dataset="bus", id=first + i, path=Path(f"bus/{first + i}.png"),
                            objects=[SimpleNamespace(annotation_id=10 * (first + i) + k) for k in range(count)])
            for i, count in enumerate(counts)
        ]  # fmt: skip

    def __len__(self):
        return len(self.images)


class Parts:
    def __init__(self, *datasets):
        self.datasets = datasets

    def __len__(self):
        return sum(map(len, self.datasets))


def all_images():
    counts = [len(found) for found in DICE]
    return SeededDataset(Parts(Images(0, counts[:2]), Images(2, counts[2:])), 0)


def write(folder, dice=DICE, repeats=1):
    with (folder / "per_object.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        for image, found in enumerate(dice):
            for k, value in enumerate(found):
                for repeat in range(repeats):
                    # Repeats lie around their mean.
                    shift = 0 if value == 1 or repeats == 1 else 0.1 * (2 * repeat - 1)
                    writer.writerow({
                        "dataset": "bus", "image_id": image, "image": f"elsewhere/{image}.png", "repeat": repeat,
                        "annotation_id": 10 * image + k, "group": image, "score": 0.5,
                        "dice": "" if value is None else value + shift,
                    })  # fmt: skip
    return str(folder)


@pytest.mark.parametrize("repeats", [1, 2])
def test_an_image_is_as_hard_as_its_hardest_object(tmp_path, repeats):
    write(tmp_path, repeats=repeats)
    records = [image for part in all_images().datasets for image in part.images]
    assert np.allclose(image_hardness(records, tmp_path, "dice"), HARDNESS)


def test_shares_of_each_pass_and_of_all_passes(tmp_path):
    sampler = HardObjectSampler(all_images(), write(tmp_path), share=0.6, seed=4)
    expected = 6 * (0.4 / 6 + 0.6 * np.array(HARDNESS) / sum(HARDNESS))
    counts = np.array([np.bincount(sampler.order(number), minlength=6) for number in range(4000)])
    assert (counts.sum(axis=1) == 6).all()
    assert (counts >= np.floor(expected)).all() and (counts <= np.ceil(expected)).all()
    assert np.allclose(counts.mean(axis=0), expected, atol=0.03)


def test_nothing_hard_is_every_image_once(tmp_path):
    sampler = HardObjectSampler(all_images(), write(tmp_path, [[1.0] * len(found) for found in DICE]), seed=0)
    for number in range(20):
        assert sorted(sampler.order(number).tolist()) == list(range(6))


def test_a_run_continues_with_the_identical_sequence(tmp_path):
    folder = write(tmp_path)
    whole = HardObjectSampler(all_images(), folder, seed=1)
    rows = [next(rows) for rows in [iter(whole)] for _ in range(100)]
    whole.advance(37)
    again = HardObjectSampler(all_images(), folder, seed=8)
    again.load_state_dict(whole.state_dict())
    rest = iter(again)
    continued = [next(rest) for _ in range(63)]
    assert [(int(row), row.draw) for row in continued] == [(int(row), row.draw) for row in rows[37:]]
    other = HardObjectSampler(all_images(), folder, share=0.4, seed=1)
    with pytest.raises(CheckpointError, match="other results or another share"):
        other.load_state_dict(whole.state_dict())


def test_refusals(tmp_path):
    folder = write(tmp_path)
    for wrong in ({"score": "hd95"}, {"share": 0.0}, {"share": 1.0}):
        with pytest.raises(ConfigError, match=rf"{next(iter(wrong))} must be"):
            HardObjectSampler(all_images(), folder, **wrong, seed=0)
    with pytest.raises(ConfigError, match="needs PromptedCocoDataset, found list"):
        HardObjectSampler(SeededDataset([1, 2], 0), folder, seed=0)
    with pytest.raises(DataError, match=r"object 70 of bus/7\.png is not there; test on the training list"):
        HardObjectSampler(SeededDataset(Images(7, [1]), 0), folder, seed=0)
    write(tmp_path, [[None, 0.4], *DICE[1:]])
    with pytest.raises(DataError, match=r"object 0 of bus/0\.png has no dice there"):
        HardObjectSampler(all_images(), folder, seed=0)
    with pytest.raises(DataError, match="does not exist"):
        HardObjectSampler(all_images(), str(tmp_path / "absent"), seed=0)
