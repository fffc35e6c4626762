"""Walking through wrapped datasets gives the samples index by index."""

from types import SimpleNamespace

import pytest
from mmdet.registry import DATASETS
from torch.utils.data import Dataset

from ultrasam.datasets.nesting import indexed_leaves, leaves, source_name
from ultrasam.engine.sampling import SeededDataset
from ultrasam.engine.setup import register_all

register_all()


@DATASETS.register_module()
class NumberedLeaf(Dataset):
    """Samples that say whose they are."""

    def __init__(self, name, size):
        self.images = [f"{name}{number}" for number in range(size)]
        self.metainfo = {"source": name} if name != "b" else {}

    def full_init(self):
        pass

    def get_data_info(self, index):
        return self.images[index]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


@pytest.fixture
def nested():
    a = {"type": "RepeatDataset", "times": 3, "dataset": {"type": "NumberedLeaf", "name": "a", "size": 2}}
    b = {"type": "NumberedLeaf", "name": "b", "size": 4}
    c = {"type": "RepeatDataset", "times": 2, "dataset": {"type": "NumberedLeaf", "name": "c", "size": 1}}
    return SeededDataset(DATASETS.build({"type": "ConcatDataset", "datasets": [a, b, c]}), 0)


def test_samples_of_the_leaves_are_those_of_the_whole(nested):
    walked = [sample for leaf in indexed_leaves(nested) for sample in leaf.images]
    assert walked == [nested[index] for index in range(len(nested))]
    assert len(walked) == 12


def test_a_repeated_dataset_below_the_seeding_view_is_not_repeated_twice():
    leaf = {"type": "NumberedLeaf", "name": "a", "size": 2}
    whole = SeededDataset(DATASETS.build({"type": "RepeatDataset", "times": 3, "dataset": leaf}), 0)
    assert len(list(indexed_leaves(whole))) == 3


def test_leaves_come_once_and_have_names(nested):
    assert [leaf.images[0] for leaf in leaves(nested)] == ["a0", "b0", "c0"]
    assert [source_name(leaf) for leaf in leaves(nested)] == ["a", "NumberedLeaf", "c"]
    bare = SimpleNamespace()
    assert leaves(bare) == [bare] and list(indexed_leaves(range(3))) == [range(3)]
