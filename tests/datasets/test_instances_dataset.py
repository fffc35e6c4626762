"""The data set of instance segmentation: classes, random windows, what is packed."""

import json

import numpy as np
import pytest
import torch

from ultrasam.datasets.coco import CocoObject
from ultrasam.engine.setup import register_all
from ultrasam.errors import ConfigError
from ultrasam.geometry.rle import decode_mask, encode_mask, rle_area, rle_box
from ultrasam.io.images import write_png

register_all()

from ultrasam.datasets.instances import InstanceCocoDataset, JitterSquare, PackInstances  # noqa: E402
from ultrasam.datasets.transforms import FitSquare, FlipHorizontal  # noqa: E402

HEIGHT, WIDTH = 30, 50


def rectangle(y1, x1, y2, x2):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def results(*masks):
    """An image whose value tells the object that a pixel belongs to."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for number, mask in enumerate(masks):
        image[mask] = min(100 + 100 * number, 250)
    rles = [encode_mask(mask) for mask in masks]
    objects = [CocoObject(7 + n, n, rle, rle_box(rle), rle_area(rle)) for n, rle in enumerate(rles)]
    stacked = np.stack(masks) if masks else np.zeros((0, HEIGHT, WIDTH), bool)
    return dict(
        img=image, masks=stacked, objects=objects, boxes=np.array([o.box for o in objects], np.float32).reshape(-1, 4),
        img_path="a.png", img_id=1, dataset="mini", group="g", sample_idx=0, ori_shape=(HEIGHT, WIDTH),
        height=HEIGHT, width=WIDTH, flip=False,
    )  # fmt: skip


@pytest.fixture
def file(tmp_path):
    write_png(tmp_path / "a.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    write_png(tmp_path / "b.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    shapes = [(1, 3, rectangle(2, 3, 10, 12)), (1, 5, rectangle(12, 20, 20, 40))]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH},
                   {"id": 2, "file_name": "b.png", "height": HEIGHT, "width": WIDTH}],
        "annotations": [
            {"id": n + 1, "image_id": image, "category_id": category, "segmentation": encode_mask(mask), "iscrowd": 0}
            for n, (image, category, mask) in enumerate(shapes)
        ],
        "categories": [{"id": 3, "name": "cyst"}, {"id": 5, "name": "tumour"}],
    }  # fmt: skip
    content["annotations"].append({**content["annotations"][0], "id": 9, "iscrowd": 1})
    path = tmp_path / "train.mini.json"
    path.write_text(json.dumps(content))
    return path


PIPELINE = [dict(type="LoadUltrasound"), dict(type="FitSquare", square=32), dict(type="PackInstances")]


def test_labels_follow_the_order_of_the_classes(file):
    for classes, labels in ((None, [0, 1]), (["tumour", "cyst"], [1, 0])):
        data = InstanceCocoDataset(file.name, str(file.parent), pipeline=PIPELINE, classes=classes)
        sample = data[0]["data_samples"]
        assert sample.gt_instances.labels.tolist() == labels and len(data) == 2, "crowds are no objects"
        assert sample.classes == data.metainfo["classes"] == tuple(classes or ("cyst", "tumour"))
        assert len(data[1]["data_samples"].gt_instances) == 0
    with pytest.raises(ConfigError, match="cyst"):
        InstanceCocoDataset(file.name, str(file.parent), classes=["tumour"])
    assert len(InstanceCocoDataset(file.name, str(file.parent), empty="skip")) == 1


def test_test_samples_keep_the_original_truth(file):
    sample = InstanceCocoDataset(file.name, str(file.parent), pipeline=PIPELINE, test_mode=True)[0]["data_samples"]
    found = sample.gt_instances
    assert "masks" not in found and found.bboxes.tolist() == [[3, 2, 12, 10], [20, 12, 40, 20]]
    assert np.array_equal(decode_mask(found.rles[1]), rectangle(12, 20, 20, 40))


def test_training_masks_lie_on_their_objects():
    packed = PackInstances()(FitSquare(40, target_size=40)(results(rectangle(2, 3, 10, 12), rectangle(12, 20, 28, 40))))
    masks = packed["data_samples"].gt_instances.masks
    image = torch.zeros(40, 40, dtype=torch.uint8)
    image[: packed["inputs"].shape[1]] = packed["inputs"][0]
    assert masks.dtype == torch.bool and masks.shape == (2, 40, 40)
    for mask, value in zip(masks, (100, 200), strict=True):
        assert image[mask].float().median() == value


@pytest.mark.parametrize("seed", range(6))
def test_windows_keep_image_and_masks_together(seed):
    np.random.seed(seed)
    jitter = JitterSquare(32, 0.5, 2.0)
    found = jitter(results(rectangle(2, 3, 14, 22), rectangle(14, 20, 30, 45)))
    height, width = found["img"].shape[:2]
    assert max(height, width) <= 32 and found["img_shape"] == (height, width)
    assert found["targets"].shape == (2, 32, 32)
    image = np.zeros((32, 32))
    image[:height, :width] = found["img"][..., 0]
    for mask, value in zip(found["targets"].numpy(), (100, 200), strict=True):
        assert not mask[height:].any() and not mask[:, width:].any()
        # Edges are interpolated, the inside is not: both agree but for a rim of a pixel or two.
        solid = np.abs(image - value) < 1
        assert (solid & ~mask).sum() <= 0.35 * max(mask.sum(), 20) and (mask & (image == 0)).sum() <= 0.2 * mask.sum()


def test_scale_one_is_the_plain_fit():
    masks = rectangle(2, 3, 10, 12), rectangle(12, 20, 28, 40)
    jittered, fitted = JitterSquare(32, 1.0, 1.0)(results(*masks)), FitSquare(32, target_size=32)(results(*masks))
    assert np.array_equal(jittered["img"], fitted["img"]) and torch.equal(jittered["targets"], fitted["targets"])


def test_windows_move_over_the_whole_image():
    """At twice the size a window shows half of each side; each part of the image is seen by some."""
    np.random.seed(0)
    corners = [rectangle(0, 0, 3, 3), rectangle(0, 47, 3, 50), rectangle(27, 0, 30, 3), rectangle(27, 47, 30, 50)]
    seen = sum(JitterSquare(32, 2.0, 2.0)(results(*corners))["targets"].flatten(1).any(dim=1).int() for _ in range(80))
    assert (seen > 0).all() and (seen < 40).all()


def test_objects_outside_of_the_window_are_left_out():
    np.random.seed(1)
    found = JitterSquare(16, 2.0, 2.0)(results(rectangle(0, 0, 4, 4), rectangle(26, 46, 30, 50)))
    packed = PackInstances()(found)["data_samples"]
    kept = found["targets"].flatten(1).any(dim=1)
    assert not kept.all()
    assert packed.gt_instances.labels.tolist() == torch.arange(2)[kept].tolist()
    assert packed.gt_instances.annotation_ids.tolist() == (7 + torch.arange(2)[kept]).tolist()
    assert packed.transform is None


def test_mirrored_test_samples_mirror_their_truth():
    flipped = FlipHorizontal(1.0)(results(rectangle(2, 3, 10, 12)))
    found = PackInstances()(FitSquare(32)(flipped))["data_samples"].gt_instances
    assert found.bboxes.tolist() == [[38, 2, 47, 10]]


def test_empty_images_pack():
    for fit in (FitSquare(32, target_size=32), JitterSquare(32), FitSquare(32)):
        found = PackInstances()(fit(results()))["data_samples"].gt_instances
        assert len(found) == 0 and found.labels.dtype == torch.long
    assert found.bboxes.shape == (0, 4)


def test_errors():
    with pytest.raises(ConfigError, match=r"0 < smallest <= largest, got 2\.0 and 1\.0"):
        JitterSquare(32, 2.0, 1.0)
    with pytest.raises(ConfigError, match="put FitSquare or JitterSquare before it"):
        PackInstances()(results())
    with pytest.raises(TypeError, match="prompt"):
        InstanceCocoDataset("x.json", prompt="point")
