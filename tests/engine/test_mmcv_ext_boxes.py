"""Box operators through mmcv's own wrappers, against pixel counting and the loops of mmcv's C++ source."""

from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ultrasam.engine import mmcv_ext


@pytest.fixture(scope="module")
def ops() -> ModuleType:
    mmcv_ext.install()
    import mmcv.ops

    return mmcv.ops


def random_boxes(seed: int, count: int, extent: int = 30) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, extent, (count, 2), generator=generator)
    size = torch.randint(1, extent // 2, (count, 2), generator=generator)
    # Irregular, so that no two lowered scores are equal.
    scores = (
        torch.randperm(count, generator=generator) + 0.3 * torch.rand(count, generator=generator)
    ) / count
    return torch.cat((corner, corner + size), 1).float(), scores


def pixels(box: Tensor, offset: int) -> set[tuple[int, int]]:
    """Whole pixels of an integer box: half-open for offset 0, inclusive for offset 1."""
    x1, y1, x2, y2 = (int(v) for v in box)
    return {(x, y) for x in range(x1, x2 + offset) for y in range(y1, y2 + offset)}


def counted_overlap(first: Tensor, second: Tensor, offset: int, mode: str = "iou") -> float:
    a, b = pixels(first, offset), pixels(second, offset)
    return len(a & b) / len(a | b if mode == "iou" else a)


def greedy_groups(
    boxes: Tensor, scores: Tensor, threshold: float, offset: int, inclusive: bool
) -> list[list[int]]:
    """Suppression by the book: take the best, drop what overlaps it, go on with the rest."""
    left = sorted(range(len(boxes)), key=lambda i: -float(scores[i]))
    groups = []
    while left:
        best, rest = left[0], left[1:]
        overlaps = {i: counted_overlap(boxes[best], boxes[i], offset) for i in rest}
        dropped = [i for i in rest if overlaps[i] > threshold or (inclusive and overlaps[i] == threshold)]
        groups.append([best, *dropped])
        left = [i for i in rest if i not in dropped]
    return groups


def soft_nms_by_swapping(
    boxes: Tensor, scores: Tensor, threshold: float, sigma: float, min_score: float, method: str, offset: int
) -> tuple[list[int], list[float]]:
    """The loop of mmcv's ``softnms_cpu``, with its swaps."""
    order, current = list(range(len(boxes))), [float(s) for s in scores]
    count, i = len(order), 0
    while i < count:
        best = max(range(i, count), key=lambda k: current[k])
        order[i], order[best] = order[best], order[i]
        current[i], current[best] = current[best], current[i]
        k = i + 1
        while k < count:
            overlap = counted_overlap(boxes[order[i]], boxes[order[k]], offset)
            if method == "gaussian":
                current[k] *= float(np.exp(-(overlap**2) / sigma))
            elif overlap >= threshold:
                current[k] *= 0 if method == "naive" else 1 - overlap
            if current[k] < min_score:
                count -= 1
                order[k], current[k] = order[count], current[count]
                k -= 1
            k += 1
        i += 1
    return order[:count], current[:count]


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10**6), offset=st.sampled_from([0, 1]), threshold=st.sampled_from([0.11, 0.37, 0.62])
)
def test_nms_keeps_what_brute_force_keeps(ops: ModuleType, seed: int, offset: int, threshold: float) -> None:
    boxes, scores = random_boxes(seed, 25)
    expected = [group[0] for group in greedy_groups(boxes, scores, threshold, offset, inclusive=False)]
    dets, kept = ops.nms(boxes, scores, iou_threshold=threshold, offset=offset)
    assert kept.tolist() == expected
    torch.testing.assert_close(dets, torch.cat((boxes[kept], scores[kept, None]), 1))


def test_nms_offset_decides_on_touching_boxes(ops: ModuleType) -> None:
    boxes = torch.tensor([[0.0, 0, 1, 1], [1, 0, 2, 1]])
    scores = torch.tensor([0.9, 0.8])
    assert ops.nms(boxes, scores, iou_threshold=0.1, offset=0)[1].tolist() == [0, 1]
    assert ops.nms(boxes, scores, iou_threshold=0.1, offset=1)[1].tolist() == [0]


def test_nms_of_nothing_and_of_half_precision(ops: ModuleType) -> None:
    assert ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)[1].tolist() == []
    boxes, scores = random_boxes(3, 20)
    expected = ops.nms(boxes, scores, 0.4)[1]
    dets, kept = ops.nms(boxes.bfloat16(), scores, 0.4)
    assert kept.tolist() == expected.tolist()
    assert len(dets) == len(kept)


def test_batched_nms_suppresses_within_classes_only(ops: ModuleType) -> None:
    boxes, scores = random_boxes(8, 40)
    classes = torch.arange(40) % 3
    _, kept = ops.batched_nms(boxes, scores, classes, {"type": "nms", "iou_threshold": 0.3})
    expected = []
    for label in range(3):
        members = (classes == label).nonzero()[:, 0]
        groups = greedy_groups(boxes[members], scores[members], 0.3, 0, inclusive=False)
        expected += [int(members[group[0]]) for group in groups]
    assert sorted(kept.tolist()) == sorted(expected)
    assert (scores[kept].diff() < 0).all()


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), threshold=st.sampled_from([0.11, 0.37, 0.62]))
def test_nms_match_groups_like_brute_force(ops: ModuleType, seed: int, threshold: float) -> None:
    boxes, scores = random_boxes(seed, 25)
    groups = ops.nms_match(torch.cat((boxes, scores[:, None]), 1), threshold)
    assert [g.tolist() for g in groups] == greedy_groups(boxes, scores, threshold, 0, inclusive=True)


def test_nms_match_includes_the_threshold_and_nms_does_not(ops: ModuleType) -> None:
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1]])
    scores = torch.tensor([0.9, 0.8])
    assert [g.tolist() for g in ops.nms_match(torch.cat((boxes, scores[:, None]), 1), 0.5)] == [[0, 1]]
    assert ops.nms(boxes, scores, 0.5)[1].tolist() == [0, 1]


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms_follows_mmcv_loop(ops: ModuleType, method: str, offset: int) -> None:
    for seed in range(5):
        boxes, scores = random_boxes(seed, 20)
        dets, kept = ops.soft_nms(boxes, scores, 0.3, 0.5, 0.05, method, offset)
        order, expected = soft_nms_by_swapping(boxes, scores, 0.3, 0.5, 0.05, method, offset)
        assert kept.tolist() == order
        torch.testing.assert_close(dets[:, 4], torch.tensor(expected))
        torch.testing.assert_close(dets[:, :4], boxes[kept])
        assert len(kept) < 20, "the case must drop something"


def test_soft_nms_of_nothing_and_below_the_threshold(ops: ModuleType) -> None:
    dets, kept = ops.soft_nms(torch.zeros(0, 4), torch.zeros(0))
    assert dets.shape == (0, 5) and kept.tolist() == []
    boxes = torch.tensor([[0.0, 0, 2, 2], [9, 9, 11, 11]])
    # mmcv keeps the first box whatever its score: scores are compared only after they were lowered.
    assert ops.soft_nms(boxes, torch.tensor([1e-5, 1e-6]))[1].tolist() == [0]


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("mode", ["iou", "iof"])
def test_bbox_overlaps_counts_pixels(ops: ModuleType, mode: str, offset: int) -> None:
    first, second = random_boxes(1, 12)[0], random_boxes(2, 9)[0]
    table = torch.tensor([[counted_overlap(a, b, offset, mode) for b in second] for a in first])
    torch.testing.assert_close(ops.bbox_overlaps(first, second, mode, offset=offset), table)
    aligned = ops.bbox_overlaps(first[:9], second, mode, aligned=True, offset=offset)
    torch.testing.assert_close(aligned, table.diagonal())
    assert table.max() > 0
