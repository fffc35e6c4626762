"""The prompts that a detector gets under every condition, and the Dice of its answers; the detector follows rules."""

import types

import numpy as np
import pytest
import torch

from ultrasam.errors import ConfigError
from ultrasam.evaluation.overlap import dice
from ultrasam.evaluation.robustness import Cost, Plan, measure_image
from ultrasam.geometry.rle import encode_mask
from ultrasam.geometry.transform import SquareTransform
from ultrasam.modeling.prompt_encoder import CORNER_A, NEGATIVE, POSITIVE

SIDE = 64
Y, X = np.mgrid[:SIDE, :SIDE]


class Painter:
    """Fills a box; adds a disc around each click inside and takes one away around each click outside."""

    mask_order = "logits"
    mask_prompt = True

    def __init__(self, radius=9.0):
        self.radius = radius
        self.encoded, self.asked, self.before = 0, [], []

    def extract_feat(self, images):
        self.encoded += len(images)
        return torch.zeros(len(images), 1, 1, 1)

    def paint(self, coords, labels):
        mask = np.zeros((SIDE, SIDE), bool)
        if CORNER_A in labels:
            (x1, y1), (x2, y2) = coords
            return (x1 <= X + 0.5) & (x2 > X + 0.5) & (y1 <= Y + 0.5) & (y2 > Y + 0.5)
        for (x, y), label in zip(coords, labels, strict=True):
            disc = np.hypot(X - x, Y - y) <= self.radius
            mask = mask | disc if label == POSITIVE else mask & ~disc if label == NEGATIVE else mask
        return mask

    def answers(self, embeddings, prompts, samples):
        rows = list(zip(prompts.coords.tolist(), prompts.labels.tolist(), strict=True))
        self.asked += rows
        self.before.append(prompts.masks)
        masks = np.stack([self.paint(*row) for row in rows])
        return torch.from_numpy(masks).float() * 2 - 1, torch.ones(len(rows))


def rectangle(x1, y1, x2, y2):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def disc(x, y, radius):
    return np.hypot(X - x, Y - y) <= radius


def sample_of(*masks, image=1, first=1):
    boxes = [[np.nonzero(m.any(0))[0][0], np.nonzero(m.any(1))[0][0], np.nonzero(m.any(0))[0][-1] + 1,
              np.nonzero(m.any(1))[0][-1] + 1] for m in masks]  # fmt: skip
    truth = types.SimpleNamespace(
        rles=[encode_mask(mask) for mask in masks],
        bboxes=torch.tensor(np.array(boxes), dtype=torch.float32).reshape(-1, 4),
        annotation_ids=[first + number for number in range(len(masks))],
    )
    fit = SquareTransform.fit(SIDE, SIDE, SIDE)
    return types.SimpleNamespace(gt_instances=truth, transform=fit, dataset="set", group="p1", img_id=image)


def measured(sample, plan, detector=None):
    detector, cost = detector or Painter(), Cost()
    found = measure_image(detector, torch.zeros(3, SIDE, SIDE, dtype=torch.uint8), sample, plan, cost)
    return found, detector, cost


def test_exact_and_jittered_boxes():
    truth = rectangle(20, 24, 40, 34)
    (found,), detector, cost = measured(sample_of(truth), Plan(jitter=(0.2, 0.1), positions=(), clicks=0))
    boxes = np.array([coords for coords, _ in detector.asked]).reshape(3, 4)
    assert boxes[0].tolist() == [20, 24, 40, 34]
    assert found.jitter[0] == 1.0 and found.clicks == found.positions == ()
    draws = (boxes[1:] - boxes[0]) / ([20, 10, 20, 10] * np.array([[0.1], [0.2]]))
    # One draw an object, larger with the share.
    np.testing.assert_allclose(draws[0], draws[1], atol=1e-4)
    assert (np.abs(draws) <= 1).all() and len(np.unique(np.round(draws[0], 6))) == 4
    for box, value in zip(boxes, found.jitter, strict=True):
        assert value == dice(detector.paint(box.reshape(2, 2), [2, 3]), truth)
    assert (found.area, found.share) == (200, 200 / SIDE**2)
    assert (found.dataset, found.group, found.image_id, found.annotation_id) == ("set", "p1", "1", "1")
    assert (cost.images, cost.objects, cost.decodes, detector.encoded) == (1, 1, 3, 1)


def test_first_clicks():
    truth = disc(30, 30, 12)
    (found,), detector, cost = measured(sample_of(truth), Plan(jitter=(), clicks=1))
    asked = {tuple(coords[0]) for coords, labels in detector.asked if labels[0] == POSITIVE}
    assert len(asked) >= 3 and (30, 30) in asked
    assert found.positions[0] == found.positions[1] == found.clicks[0] == dice(disc(30, 30, 9), truth)
    assert found.positions[2] < found.positions[0] and found.positions[3] < found.positions[0]
    # Box, three places besides the deepest, one click.
    assert cost.decodes == 5 and detector.encoded == 1


def test_clicks_correct_the_largest_error_until_there_is_none():
    one, two = disc(16, 16, 9), disc(46, 46, 9)
    (found,), detector, cost = measured(sample_of(one | two), Plan(jitter=(), positions=(), clicks=4))
    # Equal discs: the first click is one of them, the second the other, and then nothing is wrong.
    assert found.clicks == (2 / 3, 1, 1, 1)
    assert cost.decodes == 3
    assert detector.before[0] is None and detector.before[1].shape == (1, 1, SIDE, SIDE)
    first = detector.asked[0][0][0]
    np.testing.assert_array_equal(detector.before[1][0, 0].numpy() > 0, disc(*first, 9))
    points = [labels for _, labels in detector.asked if CORNER_A not in labels]
    assert [labels.count(POSITIVE) for labels in points] == [1, 2]


def test_a_mask_that_is_too_large_is_clicked_outside_of_the_object():
    (found,), detector, _ = measured(sample_of(disc(30, 30, 5)), Plan(jitter=(), positions=(), clicks=2))
    coords, labels = next(row for row in reversed(detector.asked) if CORNER_A not in row[1])
    assert labels[:2] == [POSITIVE, NEGATIVE] and coords[0] == [30, 30]
    assert 5 < np.hypot(coords[1][0] - 30, coords[1][1] - 30) <= 9
    assert found.clicks[1] == dice(detector.paint(coords, labels), disc(30, 30, 5))


def test_a_model_without_mask_prompts_gets_none():
    detector = Painter(radius=4)
    detector.mask_prompt = False
    measured(sample_of(disc(30, 30, 20)), Plan(clicks=3), detector)
    assert detector.before == [None] * 4


def test_neither_order_nor_company_of_objects_matters():
    masks = [disc(12 + 5 * (n % 9), 15 + 4 * (n // 9), 6 + n % 4) for n in range(19)]
    plan = Plan(clicks=3, seed=5)
    together, detector, cost = measured(sample_of(*masks), plan)
    assert (cost.objects, detector.encoded) == (19, 1) and len({item.jitter for item in together}) > 10
    for number in (0, 7, 8, 18):
        alone, _, _ = measured(sample_of(masks[number], first=number + 1), plan)
        assert alone == [together[number]]
    other, _, _ = measured(sample_of(masks[3], image=2, first=4), plan)
    assert other[0].jitter != together[3].jitter
    assert measured(sample_of(masks[3], first=4), Plan(clicks=3, seed=6))[0][0].jitter != together[3].jitter


def test_images_without_objects_are_counted():
    found, detector, cost = measured(sample_of(), Plan())
    assert found == [] and detector.encoded == 0
    assert cost.record()["images_without_objects"] == 1 and cost.record()["objects"] == 0


def test_plans():
    assert Plan(jitter=(0.3, 0.1, 0.1)).jitter == (0, 0.1, 0.3)
    assert Plan(positions=("border",)).positions == ("deepest", "border")
    assert Plan(clicks=0).positions == ()
    for wrong, words in (
        (dict(jitter=(0.1, -0.2)), "found -0.2"), (dict(jitter=(5.0,)), "found 5.0"), (dict(clicks=-1), "found -1"),
        (dict(positions=("edge",)), "deepest, centroid, random, border, found 'edge'"),
        (dict(jitter=(float("nan"),)), "found nan"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            Plan(**wrong)
