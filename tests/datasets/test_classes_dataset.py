"""Datasets of classes: samples, counts, parts, prompts with classes, and balanced sampling."""

import numpy as np
import pytest
import torch
from labelled_coco import coco_file

from ultrasam.engine.setup import register_all

register_all()

from ultrasam.datasets.classes import ClassDataset  # noqa: E402
from ultrasam.datasets.classes_prompted import PromptedClassDataset  # noqa: E402
from ultrasam.datasets.classes_sampler import BalancedClassSampler, balanced_sample_weights  # noqa: E402
from ultrasam.errors import ConfigError, DataError  # noqa: E402
from ultrasam.io.images import write_png  # noqa: E402

FIT = dict(type="FitSquare", square=16)
PIPELINE = [dict(type="LoadPicture"), dict(type="FlipHorizontal", prob=1.0), FIT, dict(type="PackClass")]
PROMPTED = [
    dict(type="LoadUltrasound"), dict(type="FlipHorizontal", prob=1.0), FIT, dict(type="SimulatePrompts"),
    dict(type="PackPromptedClass"),
]  # fmt: skip
IMAGES = [
    ("a.png", "benign", ["benign"]),
    ("b.png", "malignant", ["malignant", "benign"]),
    ("c.png", "benign", ["benign"]),
    ("d.png", "benign", []),
]


@pytest.fixture
def coco(tmp_path):
    for number, (name, _, _) in enumerate(IMAGES):
        picture = np.full((8, 10, 3), 10 * number, np.uint8)
        picture[:, 0] = 200
        write_png(tmp_path / name, picture)
    return coco_file(tmp_path, IMAGES)


def test_samples_hold_the_class_and_what_names_the_image(coco):
    dataset = ClassDataset(str(coco), data_root=str(coco.parent), pipeline=PIPELINE)
    assert len(dataset) == 4 and dataset.metainfo["classes"] == ("benign", "malignant")
    assert dataset.class_counts() == [3, 1] and dataset.sample_labels() == [[0], [1], [0], [0]]
    item = dataset[1]
    sample = item["data_samples"]
    assert item["inputs"].shape == (3, 13, 16) and item["inputs"].dtype == torch.uint8
    # The bright column on the left is on the right of the mirrored image.
    assert item["inputs"][0, 0, -1] > 100 > item["inputs"][0, 0, 0]
    assert sample.gt_instances.labels.tolist() == [1] and sample.classes == ("benign", "malignant")
    assert (sample.group, sample.dataset, sample.img_id) == ("p2", "set", 2)


def test_class_order_indices_and_absent_classes(coco, caplog):
    wanted = ["other", "malignant", "benign"]
    dataset = ClassDataset(str(coco), data_root=str(coco.parent), classes=wanted, indices=[2, 1])
    assert dataset.labels == [2, 1] and dataset.class_counts() == [0, 1, 1]
    assert "no image has the class 'other'" in caplog.text
    with pytest.raises(ConfigError, match=r"indices names image 4, but .* has 4 images"):
        ClassDataset(str(coco), indices=[4])
    with pytest.raises(DataError, match="has no images to use"):
        ClassDataset(str(coco), indices=0)


def test_parts_do_not_divide_patients(tmp_path):
    lines = [f"p{n // 3}_{n}.png,{'ab'[n % 2]}" for n in range(120)]
    (tmp_path / "t.csv").write_text("file,class\n" + "\n".join(lines) + "\n")
    parts = [
        ClassDataset("t.csv", data_root=str(tmp_path), group_pattern=r"^(p\d+)_", part=part)
        for part in ("train", "val", "test")
    ]
    groups = [{image.group for image in part.entries} for part in parts]
    assert sum(map(len, parts)) == 120 and sum(map(len, groups)) == 40
    # Every part knows all classes, in one order.
    assert {part.metainfo["classes"] for part in parts} == {("a", "b")}


def test_wrong_values(coco):
    with pytest.raises(ConfigError, match="unlabelled must be"):
        ClassDataset(str(coco), unlabelled="drop")
    with pytest.raises(ConfigError, match="label_from must be"):
        PromptedClassDataset(str(coco), label_from="objects")


def test_prompted_objects_have_the_class_of_their_category(coco):
    dataset = PromptedClassDataset(str(coco), data_root=str(coco.parent), pipeline=PROMPTED, prompt="box")
    assert dataset.class_counts() == [3, 1] and dataset.sample_labels() == [[0], [1, 0], [0], []]
    sample = dataset[1]["data_samples"]
    assert sample.gt_instances.labels.tolist() == [1, 0] and sample.classes == ("benign", "malignant")
    assert "rles" not in sample.gt_instances and len(sample.prompt_instances) == 2 and sample.flip
    # The box 3 to 7 of 10 columns is mirrored to 3 to 7.
    assert sample.prompt_instances.boxes[0].tolist() == [3, 2, 7, 5]
    assert len(dataset[3]["data_samples"].prompt_instances) == 0


def test_prompted_objects_with_the_class_of_their_image(coco):
    dataset = PromptedClassDataset(
        str(coco), data_root=str(coco.parent), label_from="image", classes=["malignant", "benign"]
    )
    assert dataset.sample_labels() == [[1], [0, 0], [1], []]


def test_prompted_classes_that_do_not_fit(coco, tmp_path):
    with pytest.raises(ConfigError, match="has objects of the class 'malignant'"):
        PromptedClassDataset(str(coco), classes=["benign", "other"])
    bare = coco_file(tmp_path, [("a.png", None, ["benign"])])
    with pytest.raises(DataError, match=r"a\.png has objects but no 'class'"):
        PromptedClassDataset(str(bare), label_from="image")


def test_balanced_sampling(coco):
    dataset = ClassDataset(str(coco), data_root=str(coco.parent))
    sampler = BalancedClassSampler(dataset, seed=3)
    drawn = torch.cat([sampler.order(number) for number in range(1000)])
    shares = np.bincount(drawn, minlength=4) / len(drawn)
    # One malignant image as often as the three benign ones together.
    assert shares == pytest.approx([1 / 6, 1 / 2, 1 / 6, 1 / 6], abs=0.03)
    assert torch.equal(sampler.order(5), BalancedClassSampler(dataset, seed=3).order(5))
    iterator = iter(sampler)
    first = [int(next(iterator)) for _ in range(6)]
    sampler.advance(4)
    assert int(next(iter(sampler))) == first[4]


def test_balanced_weights_of_images_with_several_objects():
    weights = balanced_sample_weights([[0], [0, 1], [], [0]])
    # One third, the mean of one third and one, the mean of the others, one third.
    assert weights.tolist() == pytest.approx([1 / 3, 2 / 3, (1 / 3 + 2 / 3 + 1 / 3) / 3, 1 / 3])


def test_balanced_sampling_needs_classes():
    with pytest.raises(ConfigError, match="needs a dataset with classes"):
        BalancedClassSampler([1, 2], seed=0)
    with pytest.raises(ConfigError, match="draws at random"):
        BalancedClassSampler([1, 2], shuffle=False, seed=0)
