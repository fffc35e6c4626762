"""Focal losses through mmcv's wrappers, against the textbook formula and its autograd."""

from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ultrasam.engine import mmcv_ext


@pytest.fixture(scope="module")
def ops() -> ModuleType:
    mmcv_ext.install()
    import mmcv.ops

    return mmcv.ops


def textbook_sigmoid(
    logits: Tensor, target: Tensor, gamma: float, alpha: float, weight: Tensor | None
) -> Tensor:
    positive = F.one_hot(target, logits.shape[1] + 1)[:, :-1].bool()
    signed = torch.where(positive, logits, -logits)
    balance = torch.where(positive, alpha, 1 - alpha)
    loss = -balance * torch.exp(gamma * F.logsigmoid(-signed)) * F.logsigmoid(signed)
    return loss if weight is None else loss * weight[target][:, None]


def textbook_softmax(
    logits: Tensor, target: Tensor, gamma: float, alpha: float, weight: Tensor | None
) -> Tensor:
    rows = []
    for row, label in zip(logits, target.tolist(), strict=True):
        if label < 0:
            continue
        log_p = row.log_softmax(0)[label]
        loss = -alpha * (1 - log_p.exp()) ** gamma * log_p
        rows.append(loss if weight is None else loss * weight[label])
    return torch.stack(rows)


def gradient_of(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logits)[0]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_sigmoid_focal_loss(ops: ModuleType, gamma: float, reduction: str, weighted: bool) -> None:
    torch.manual_seed(0)
    logits = (torch.randn(7, 4, dtype=torch.float64) * 3).requires_grad_()
    # MMDetection's background class is the number of classes; with class weights mmcv has no entry for it.
    target = torch.tensor([0, 1, 2, 3, 1, 0, 3 if weighted else 4])
    weight = torch.rand(4, dtype=torch.float64) if weighted else None
    loss = ops.sigmoid_focal_loss(logits, target, gamma, 0.3, weight, reduction)
    expected = textbook_sigmoid(logits, target, gamma, 0.3, weight).sum() / (7 if reduction == "mean" else 1)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient_of(loss, logits), gradient_of(expected, logits))


def test_sigmoid_focal_loss_gradcheck(ops: ModuleType) -> None:
    logits = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 1, 2, 3, 1])
    assert torch.autograd.gradcheck(
        lambda x: ops.sigmoid_focal_loss(x, target, 2.0, 0.25, None, "none"), (logits,)
    )


def test_weights_refuse_a_class_they_do_not_have(ops: ModuleType) -> None:
    with pytest.raises((IndexError, RuntimeError), match="out of range"):
        ops.sigmoid_focal_loss(torch.randn(1, 3), torch.tensor([3]), 2.0, 0.25, torch.ones(3))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_softmax_focal_loss_ignores_negative_classes(ops: ModuleType, gamma: float, weighted: bool) -> None:
    torch.manual_seed(1)
    logits = (torch.randn(6, 4, dtype=torch.float64) * 2).requires_grad_()
    target = torch.tensor([0, 3, -1, 2, 1, -1])
    weight = torch.rand(4, dtype=torch.float64) if weighted else None
    loss = ops.softmax_focal_loss(logits, target, gamma, 0.7, weight, "sum")
    expected = textbook_softmax(logits, target, gamma, 0.7, weight).sum()
    torch.testing.assert_close(loss, expected)
    gradient = gradient_of(loss, logits)
    torch.testing.assert_close(gradient, gradient_of(expected, logits))
    assert gradient[2].abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_saturated_logits_stay_finite(ops: ModuleType, gamma: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], dtype=dtype, requires_grad=True)
    target = torch.tensor([0, 0])
    for function in (ops.sigmoid_focal_loss, ops.softmax_focal_loss):
        loss = function(logits, target, gamma, 0.25, None, "sum")
        assert torch.isfinite(loss) and loss > 1, "the second row is wrong and must cost"
        assert torch.isfinite(gradient_of(loss, logits)).all()
