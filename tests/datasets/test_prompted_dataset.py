"""The prompted dataset and its pipeline on a small COCO set, and on everything that can be wrong with one."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS
from PIL import Image
from torch.utils.data import DataLoader

from ultrasam.engine.sampling import SampleKey, SeededDataset
from ultrasam.engine.setup import register_all
from ultrasam.errors import ConfigError, DataError
from ultrasam.geometry.rle import decode_mask, encode_mask
from ultrasam.geometry.transform import SquareTransform

register_all()

from ultrasam.datasets.dataset import PromptedCocoDataset  # noqa: E402
from ultrasam.datasets.transforms import FlipHorizontal, low_resolution_targets  # noqa: E402

SQUARE, TARGET = 64, 16
FIT = {"type": "FitSquare", "square": SQUARE}
TEST = [{"type": "LoadUltrasound"}, FIT, {"type": "SimulatePrompts"}, {"type": "PackPrompted"}]


def train_pipeline(flip: float = 0.5, repeats: int = 1, share: float = 0.5):
    return [
        {"type": "LoadUltrasound"},
        {"type": "FlipHorizontal", "prob": flip},
        {**FIT, "target_size": TARGET},
        {"type": "SimulatePrompts", "repeats": repeats, "point_share": share},
        {"type": "PackPrompted"},
    ]


def ellipse(height, width, x, y, rx, ry):
    rows, columns = np.mgrid[:height, :width]
    return ((columns - x) / rx) ** 2 + ((rows - y) / ry) ** 2 <= 1


class Mini:
    """Three images of two, one and no objects; the mask's pixels are bright in the image."""

    def __init__(self, root):
        self.root, self.masks = root, {}
        sizes = [(50, 80), (90, 60), (40, 40)]
        shapes = [[(20, 20, 12, 9), (60, 25, 8, 20)], [(15, 60, 10, 20)], []]
        self.content = {"images": [], "annotations": [], "categories": [{"id": 3, "name": "lesion"}]}
        (root / "images").mkdir()
        for number, ((height, width), objects) in enumerate(zip(sizes, shapes, strict=True), 1):
            image = np.random.default_rng(number).integers(0, 60, (height, width, 3), dtype=np.uint8)
            for parts in objects:
                mask = ellipse(height, width, *parts)
                image[mask] += 180
                identity = len(self.content["annotations"]) + 1
                self.masks[identity] = mask
                self.content["annotations"].append(
                    {"id": identity, "image_id": number, "category_id": 3, "segmentation": encode_mask(mask)}
                )
            name = f"images/{number}.png"
            Image.fromarray(image).save(root / name)
            self.content["images"].append(
                {"id": number, "file_name": name, "height": height, "width": width, "dataset": "mini"}
            )

    def write(self):
        (self.root / "mini.json").write_text(json.dumps(self.content))

    def dataset(self, pipeline=TEST, prompt="point", **arguments):
        self.write()
        return PromptedCocoDataset("mini.json", str(self.root), pipeline=pipeline, prompt=prompt, **arguments)


@pytest.fixture
def mini(tmp_path):
    return Mini(tmp_path)


def test_classes_come_from_the_file(mini):
    mini.content["categories"].insert(0, {"id": 9, "name": "cyst"})
    dataset = mini.dataset()
    assert dataset.metainfo["classes"] == ("lesion", "cyst") and len(dataset) == 3
    assert dataset[0]["data_samples"].gt_instances.labels.tolist() == [0, 0]
    other = mini.dataset(classes=["cyst", "lesion"], metainfo={"palette": [1]})
    assert other.metainfo == {"classes": ("cyst", "lesion"), "palette": [1]}
    assert other[0]["data_samples"].gt_instances.labels.tolist() == [1, 1]


def test_wrong_classes_are_named_with_the_right_ones(mini):
    with pytest.raises(ConfigError, match=r"\['nodule'\].*mini\.json.*\['lesion'\]"):
        mini.dataset(classes=["nodule"])


def test_packed_fields(mini):
    packed = mini.dataset()[0]
    sample = packed["data_samples"]
    assert packed["inputs"].shape == (3, 40, 64) and packed["inputs"].dtype == torch.uint8
    assert (sample.ori_shape, sample.img_shape, sample.img_id) == ((50, 80), (40, 64), 1)
    assert (sample.dataset, sample.group, sample.sample_idx) == ("mini", "mini/images/1.png", 0)
    assert sample.img_path == str(mini.root / "images/1.png") and sample.flip is False
    assert sample.transform == SquareTransform((50, 80), (40, 64), SQUARE)
    truth, prompts = sample.gt_instances, sample.prompt_instances
    assert truth.annotation_ids == [1, 2] and "targets" not in truth
    for rle, box, identity in zip(truth.rles, truth.bboxes, truth.annotation_ids, strict=True):
        mask = mini.masks[identity]
        np.testing.assert_array_equal(decode_mask(rle), mask)
        ys, xs = np.nonzero(mask)
        assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    assert prompts.kind == ["point", "point"] and prompts.boxes.isnan().all()
    assert prompts.labels.tolist() == [[1, -1], [1, -1]]
    for number, mask in enumerate(mini.masks[i] for i in (1, 2)):
        ((x, y),) = prompts.points[number]
        assert mask[int(y), int(x)] and prompts.point_labels[number].tolist() == [1]
        assert prompts.coords[number, 0].tolist() == pytest.approx([x * 0.8, y * 0.8])


def test_box_prompts_and_empty_image(mini):
    dataset = mini.dataset(prompt="box")
    sample = dataset[1]["data_samples"]
    prompts, truth = sample.prompt_instances, sample.gt_instances
    torch.testing.assert_close(prompts.boxes, truth.bboxes)
    assert prompts.labels.tolist() == [[2, 3]] and prompts.kind == ["box"]
    torch.testing.assert_close(prompts.coords.reshape(1, 4), truth.bboxes * SQUARE / 90, rtol=0.01, atol=0.2)
    sample = dataset[2]["data_samples"]
    assert len(sample.prompt_instances) == len(sample.gt_instances) == 0
    assert sample.prompt_instances.boxes.shape == sample.gt_instances.bboxes.shape == (0, 4)
    negative = mini.dataset(train_pipeline(), "train")[2]["data_samples"]
    assert negative.gt_instances.targets.shape == (0, TARGET, TARGET)


def test_images_without_objects(mini, caplog):
    assert len(mini.dataset(train_pipeline(), "train")) == 3
    with caplog.at_level("WARNING"):
        assert len(mini.dataset(train_pipeline(), "train", empty="skip")) == 2
    assert "left out 1 images without objects" in caplog.text
    assert len(mini.dataset(empty="skip", test_mode=True)) == 3
    assert len(mini.dataset(indices=1)) == 1
    assert [mini.dataset(indices=[2, 0])[i]["data_samples"].img_id for i in (0, 1)] == [3, 1]
    for annotation in mini.content["annotations"]:
        annotation["iscrowd"] = 1
    assert len(mini.dataset()[0]["data_samples"].gt_instances) == 0
    with pytest.raises(DataError, match=r"mini\.json has no images to use \(3 without objects\)"):
        mini.dataset(train_pipeline(), "train", empty="skip")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": "boxes"}, "train, point, box, centroid, got 'boxes'"),
        ({"empty": "drop"}, "'keep' or 'skip', got 'drop'"),
        ({"indices": [0, 3]}, r"image 3, but .*mini\.json has 3 images"),
        ({"indices": [-1]}, "image -1"),
    ],
)
def test_wrong_values(mini, arguments, message):
    with pytest.raises(ConfigError, match=message):
        mini.dataset(**arguments)


def one_sentence(error) -> str:
    text = str(error.value)
    assert "\n" not in text and len(text) < 700
    return text


def test_damaged_images_are_named(mini):
    dataset = mini.dataset()
    path = mini.root / "images/1.png"
    data = path.read_bytes()
    for content in (data[: len(data) // 2], b"", b"no image"):
        path.write_bytes(content)
        with pytest.raises(DataError) as error:
            dataset[0]
        assert str(path) in one_sentence(error)
    path.unlink()
    with pytest.raises(DataError, match="does not exist") as error:
        dataset[0]
    assert str(path) in one_sentence(error)


def test_size_that_is_not_the_images_is_named(mini):
    mini.content["images"][2]["width"] = 41
    with pytest.raises(DataError, match=r"3\.png is 40 x 40 .*says 40 x 41") as error:
        mini.dataset()[2]
    one_sentence(error)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], "no mask"),
        ([[]], "no mask"),
        ([[1, 2, 3]], "annotation 2"),
        (encode_mask(np.ones((50, 81), bool)), r"(?s)50.*81|81.*50"),
        ({"size": [50, 80], "counts": [10]}, "annotation 2"),
    ],
)
def test_unsound_segmentations_name_the_file(mini, segmentation, message):
    mini.content["annotations"][1]["segmentation"] = segmentation
    with pytest.raises(DataError, match=message) as error:
        mini.dataset()
    assert "mini.json" in one_sentence(error) and "annotation 2" in one_sentence(error)


def test_unreadable_json_is_named(mini):
    dataset_file = mini.root / "mini.json"
    mini.write()
    dataset_file.write_text(dataset_file.read_text()[:-20])
    with pytest.raises(DataError, match=r"mini\.json is not valid JSON") as error:
        PromptedCocoDataset("mini.json", str(mini.root))
    one_sentence(error)
    with pytest.raises(DataError, match=r"other\.json does not exist"):
        PromptedCocoDataset("other.json", str(mini.root))


def everything(dataset, workers):
    """Pixels, targets and prompts of two passes with the draws that training would have."""
    keys = [SampleKey(draw % 3, draw) for draw in range(6)]
    loader = DataLoader(dataset, 2, sampler=keys, num_workers=workers, collate_fn=pseudo_collate)
    found = []
    for batch in loader:
        for image, sample in zip(batch["inputs"], batch["data_samples"], strict=True):
            prompts = sample.prompt_instances
            points = np.concatenate([*prompts.points, np.zeros((0, 2))])
            found.append((image, sample.gt_instances.targets, prompts.coords, prompts.boxes, points))
    return found


def test_draws_do_not_depend_on_the_number_of_workers(mini):
    plain = mini.dataset(train_pipeline(repeats=3), "train")
    alone, shared, other = (
        everything(SeededDataset(plain, seed), workers) for seed, workers in ((5, 0), (5, 2), (6, 0))
    )
    for first, second in zip(alone, shared, strict=True):
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)
    # Another pass and another seed draw anew; without this the comparison above would say nothing.
    for one, two in ((alone[0], alone[3]), (alone[0], other[0])):
        pairs = zip(one, two, strict=True)
        assert any(a.shape != b.shape or not np.array_equal(a, b, equal_nan=True) for a, b in pairs)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_flip_keeps_image_truth_and_prompts_together(mini, share):
    np.random.seed(0)
    plain = mini.dataset(train_pipeline(0.0, 2, share), "train")[0]
    flipped = mini.dataset(train_pipeline(1.0, 2, share), "train")[0]
    # Both axes are divided exactly by the resizing here, so the mirror image is exact up to rounding.
    difference = flipped["inputs"].flip(-1).int() - plain["inputs"].int()
    assert difference.abs().max() <= 1
    sample, straight = flipped["data_samples"], plain["data_samples"]
    truth, prompts = sample.gt_instances, sample.prompt_instances
    assert sample.flip and not straight.flip
    assert truth.annotation_ids == [1, 1, 2, 2] and len(prompts) == 4
    for number, identity in enumerate(truth.annotation_ids):
        mask = mini.masks[identity][:, ::-1]
        np.testing.assert_array_equal(decode_mask(truth.rles[number]), mask)
        ys, xs = np.nonzero(mask)
        box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert truth.bboxes[number].tolist() == box
        if share:
            ((x, y),) = prompts.points[number]
            assert mask[math.floor(y), math.floor(x)]
            cell = prompts.coords[number, 0] / 4
            assert truth.targets[number, max(0, int(cell[1]) - 1) : int(cell[1]) + 2, int(cell[0])].any()
        else:
            reach = 0.05 * np.array([box[2] - box[0], box[3] - box[1]] * 2) + 1e-4
            assert (np.abs(prompts.boxes[number].numpy() - box) <= reach).all()
        # The targets mark bright pixels of the image as the network gets it.
        target = torch.nn.functional.interpolate(truth.targets[number][None, None].float(), (SQUARE, SQUARE))[0, 0]
        inside = flipped["inputs"][0].float()[target[: sample.img_shape[0]].bool()]
        assert inside.mean() > 180
        mirrored = straight.gt_instances.targets[number].flip(-1)
        assert (mirrored != truth.targets[number]).float().mean() < 0.02


def test_flip_after_the_square_is_refused(mini):
    wrong = [TEST[0], FIT, {"type": "FlipHorizontal", "prob": 0.0}, *TEST[2:]]
    with pytest.raises(ConfigError, match="before FitSquare"):
        mini.dataset(wrong)[0]
    results = {"img": np.zeros((4, 6, 3), np.uint8), "masks": np.zeros((0, 4, 6), bool), "boxes": np.zeros((0, 4))}
    assert FlipHorizontal(0.0).transform(dict(results)) == results


def brute_force_targets(mask, fit, size):
    """Nearest pixel centre into the square, then the mean of the two middle pixels a side (bilinear), rounded."""
    (height, width), (rows, columns) = fit.original_size, fit.resized_size
    square = np.zeros((fit.square, fit.square))
    for row in range(rows):
        for column in range(columns):
            y, x = int((row + 0.5) * height / rows), int((column + 0.5) * width / columns)
            square[row, column] = mask[y, x]
    out = np.zeros((size, size), bool)
    step = fit.square // size
    for row in range(size):
        for column in range(size):
            y, x = row * step + step // 2 - 1, column * step + step // 2 - 1
            # numpy rounds a half to even, thus to background, as torch does
            out[row, column] = np.round(square[y : y + 2, x : x + 2].mean()) > 0
    return out


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from([2, 4]), st.sampled_from(["pad", "squash"]))
def test_targets_against_brute_force(data, step, mode):
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    mask = data.draw(arrays(bool, (height, width)))
    fit = SquareTransform.fit(height, width, 16, mode)
    found = low_resolution_targets(mask[None], fit, 16 // step)
    assert found.dtype == torch.bool
    np.testing.assert_array_equal(found[0].numpy(), brute_force_targets(mask, fit, 16 // step))


def test_targets_of_the_square_itself_and_of_no_object():
    mask = ellipse(30, 48, 20, 15, 15, 9)
    fit = SquareTransform.fit(30, 48, 48)
    found = low_resolution_targets(mask[None], fit, 48)
    np.testing.assert_array_equal(found[0, :30].numpy(), mask)
    assert not found[0, 30:].any()
    assert low_resolution_targets(np.zeros((0, 30, 48), bool), fit, 12).shape == (0, 12, 12)


def test_concatenated_as_the_test_configurations_do(mini):
    mini.write()
    part = {
        "type": "PromptedCocoDataset", "ann_file": "mini.json", "data_root": str(mini.root), "pipeline": TEST,
        "prompt": "point", "test_mode": True,
    }  # fmt: skip
    dataset = DATASETS.build({"type": "ConcatDataset", "datasets": [part, {**part, "indices": 2}]})
    assert len(dataset) == 5 and dataset.metainfo["classes"] == ("lesion",)
    assert [dataset[i]["data_samples"].img_id for i in range(5)] == [1, 2, 3, 1, 2]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 90), st.integers(1, 90), st.integers(0, 3), st.sampled_from(["pad", "squash"]), st.integers(0, 99)
)  # fmt: skip
def test_quarter_targets_are_the_bilinear_ones(height, width, count, mode, seed):
    """The fast form for SAM's sizes against PyTorch's resizing of the whole square."""
    masks = np.random.default_rng(seed).random((count, height, width)) < 0.6
    fit = SquareTransform.fit(height, width, 64, mode)
    square = torch.zeros(count, 1, 64, 64)
    for row, mask in enumerate(masks):
        small = torch.from_numpy(fit.mask(mask)).float()
        square[row, 0, : small.shape[0], : small.shape[1]] = small
    resize = torch.nn.functional.interpolate
    expected = resize(square, size=(16, 16), mode="bilinear") if count else square[..., :16, :16]
    assert torch.equal(low_resolution_targets(masks, fit, 16), expected[:, 0].round() > 0)
