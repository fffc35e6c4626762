"""What a training leaves out, and what its checkpoints say they were trained on."""

import json

import numpy as np
import pytest
from mmdet.registry import DATASETS
from PIL import Image

from ultrasam.datasets.composition import composition_of, exclude, is_named, joined_groups
from ultrasam.engine.sampling import SeededDataset
from ultrasam.engine.setup import register_all
from ultrasam.errors import ConfigError, DataError
from ultrasam.geometry.rle import encode_mask

register_all()

from ultrasam.datasets.dataset import PromptedCocoDataset  # noqa: E402

SETS = {"bus": ("breast lesions", 4), "ovary_2d": ("ovarian", 3), "head": ("fetal head", 2), "gist": ("GIST", 1)}


@pytest.fixture
def root(tmp_path):
    """Ten images with one object each, and a collection in which head/p1 shows what bus/p0 shows."""
    mask = np.zeros((8, 8), bool)
    mask[2:5, 2:6] = True
    images, annotations = [], []
    for slug, (application, count) in SETS.items():
        for number in range(count):
            name = f"{slug}_{number}.png"
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / name)
            images.append({"id": len(images) + 1, "file_name": name, "height": 8, "width": 8, "dataset": slug,
                           "group": f"{slug}/p{number}", "application": application})
            annotations.append({"id": len(images), "image_id": len(images), "category_id": 1, "iscrowd": 0,
                                "segmentation": encode_mask(mask), "area": 12, "bbox": [2, 2, 4, 3]})
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
    (tmp_path / "train.json").write_text(json.dumps(document))
    (tmp_path / "manifest.json").write_text(
        json.dumps({"near_duplicates": {"joined_groups": [["bus/p0", "head/p1"], ["head/p0", "gist/p0"]]}})
    )
    return tmp_path


def names(dataset):
    return [image.path.stem for image in dataset.images]


@pytest.mark.parametrize(
    ("words", "left_out"),
    [
        (["breast"], {"bus_0", "bus_1", "bus_2", "bus_3", "head_1"}),
        (["bus"], {"bus_0", "bus_1", "bus_2", "bus_3", "head_1"}),
        (["ovarian"], {"ovary_2d_0", "ovary_2d_1", "ovary_2d_2"}),
        (["gastrointestinal"], {"gist_0", "head_0"}),
        (["fetal", "GIST"], {"head_0", "head_1", "gist_0", "bus_0"}),
    ],
)
def test_named_sets_and_their_near_duplicates_are_left_out(root, words, left_out, caplog):
    everything = PromptedCocoDataset("train.json", str(root))
    dataset = PromptedCocoDataset("train.json", str(root), exclude=words)
    assert set(names(everything)) - set(names(dataset)) == left_out
    assert names(dataset) == [name for name in names(everything) if name not in left_out]
    assert ", ".join(words) in caplog.text and "Left out because of" in caplog.text


def test_a_word_that_names_nothing_is_refused(root):
    with pytest.raises(ConfigError, match=r"'brest'.*applications are GIST, breast lesions"):
        PromptedCocoDataset("train.json", str(root), exclude=["breast", "brest"])


def test_words_are_beginnings_of_words_not_parts(root):
    image = PromptedCocoDataset("train.json", str(root)).images[0]
    assert is_named(image, ["lesion"]) and is_named(image, ["BREAST"]) and is_named(image, ["bus"])
    assert not is_named(image, ["esion"]) and not is_named(image, ["bu"]) and not is_named(image, [])


def test_without_a_manifest_only_the_named_go(root):
    (root / "manifest.json").unlink()
    assert joined_groups(root) == []
    images = PromptedCocoDataset("train.json", str(root)).images
    kept, found = exclude(images, ["breast"], joined_groups(root))
    assert len(kept) == 6 and found.sets == {"bus": 4} and found.duplicates == {}
    (root / "manifest.json").write_text("[")
    with pytest.raises(DataError, match="no manifest of a collection"):
        joined_groups(root)


def test_the_composition_counts_images_once_below_all_wrappers(root):
    leaf = dict(type="PromptedCocoDataset", ann_file="train.json", data_root=str(root))
    parts = [dict(type="RepeatDataset", times=3, dataset={**leaf, "exclude": ["breast"]}), {**leaf, "indices": [0, 1]}]
    whole = DATASETS.build(dict(type="ConcatDataset", datasets=parts))
    assert len(whole) == 3 * 5 + 2
    found = composition_of(SeededDataset(whole, 0))
    assert found["images"] == found["masks"] == 7
    assert found["sets"]["ovary_2d"] == {"application": "ovarian", "images": 3, "masks": 3}
    assert found["sets"]["head"]["images"] == 1 and found["sets"]["bus"]["images"] == 2
    assert found["applications"]["ovarian"] == {"images": 3, "masks": 3}
    assert found["exclusions"] == [
        {"words": ["breast"], "sets": {"bus": 4}, "near_duplicates": {"head": 1}}
    ]
    assert json.loads(json.dumps(found)) == found
    assert "exclusions" not in composition_of(PromptedCocoDataset("train.json", str(root)))
