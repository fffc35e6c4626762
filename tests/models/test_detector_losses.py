"""The detector's losses against MMDetection's and torchvision's, object by object."""

import numpy as np
import pytest
import torch
from mini_batches import LOW, batch_of, small_detector
from torchvision.ops import sigmoid_focal_loss

from ultrasam.modeling.losses import LossWeights, dice_loss, focal_loss, pass_losses, true_iou
from ultrasam.models.joined_prompts import join_prompts


def mmdet_dice(logits, targets):
    """MMDetection's dice loss as the released configuration sets it, of (N, h, w)."""
    from mmdet.models.losses import DiceLoss

    loss = DiceLoss(use_sigmoid=True, activate=True, reduction="none", naive_dice=False, eps=1.0)
    return loss(logits.flatten(1), targets.flatten(1).float())


def plain_iou(logits, target):
    mask, truth = (logits > 0).numpy(), target.numpy()
    union = (mask | truth).sum()
    return (mask & truth).sum() / union if union else 1.0


def expected_losses(logits, predicted, targets, form, which):
    """Per pass: the sums over objects, one object and one candidate at a time."""
    focal = dice = regression = 0.0
    for row, target in enumerate(targets):
        ious = [plain_iou(candidate, target) for candidate in logits[row]]
        best = int(np.argmax(ious))
        chosen = logits[row, best][None]
        focal += sigmoid_focal_loss(chosen, target[None].float(), alpha=0.25, gamma=2.0).mean().item()
        dice += mmdet_dice(chosen, target[None]).item()
        errors = predicted[row].numpy() - np.array(ious)
        errors = np.abs(errors) if form == "l1" else errors**2
        regression += errors.mean() if which == "all" else errors[best]
    return {"loss_focal": focal, "loss_dice": dice, "loss_iou": regression}


@pytest.mark.parametrize("form", ["l1", "mse"])
@pytest.mark.parametrize("which", ["best", "all"])
def test_detector_losses_against_other_implementations(form, which):
    weights = {"focal": 20.0, "dice": 1.5, "iou": 0.5, "iou_form": form, "iou_targets": which}
    detector = small_detector(loss=weights).eval()
    batch = detector.data_preprocessor(batch_of(3, 0, 2))
    with torch.no_grad():
        found = detector(**batch, mode="loss")
        prompts = join_prompts(batch["data_samples"], torch.device("cpu"))
        outcomes = detector.run_passes(detector.extract_feat(batch["inputs"]), prompts)
    targets = torch.cat([sample.gt_instances.targets for sample in batch["data_samples"]])
    assert targets.flatten(1).any(1).all()
    scale = {"loss_focal": 20.0, "loss_dice": 1.5, "loss_iou": 0.5}
    assert len(found) == 6
    for suffix, (logits, iou) in zip(("", ".0"), outcomes, strict=True):
        for name, total in expected_losses(logits, iou, targets, form, which).items():
            assert found[name + suffix].item() == pytest.approx(scale[name] * total / 5, rel=1e-5), name + suffix


def test_weights_of_the_paper():
    weights = LossWeights()
    assert (weights.focal, weights.dice, weights.iou, weights.iou_form) == (20.0, 1.0, 1.0, "l1")


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_terms_of_single_objects(scale):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(6, 9, 11, generator=generator) * scale
    targets = torch.rand(6, 9, 11, generator=generator) > torch.linspace(0, 1.01, 6)[:, None, None]
    assert targets[0].all() and not targets[-1].any()
    expected = sigmoid_focal_loss(logits, targets.float(), alpha=0.25, gamma=2.0).flatten(1).mean(1)
    torch.testing.assert_close(focal_loss(logits, targets), expected)
    torch.testing.assert_close(dice_loss(logits, targets), mmdet_dice(logits, targets))
    assert focal_loss(logits.half(), targets).dtype == torch.float32


def test_candidate_of_the_highest_true_iou_is_trained_whatever_is_predicted():
    targets = torch.zeros(2, LOW, LOW, dtype=torch.bool)
    targets[:, 5:15, 5:15] = True
    logits = torch.full((2, 3, LOW, LOW), -2.0)
    logits[0, 0, 5:15, 5:14] = logits[1, 2, 5:15, 5:14] = 2.0  # IoU 0.9
    logits[0, 1, 5:15, 5:25] = logits[1, 0, 5:15, 5:25] = 2.0  # IoU 0.5
    predicted = torch.tensor([[0.1, 0.9, 0.2], [0.8, 0.3, 0.1]])
    torch.testing.assert_close(true_iou(logits, targets), torch.tensor([[0.9, 0.5, 0.0], [0.5, 0.0, 0.9]]))
    for which, expected in (("best", 0.8), ("all", (0.8 + 0.4 + 0.2 + 0.3 + 0.3 + 0.8) / 6)):
        logits, predicted = logits.detach().requires_grad_(), predicted.detach().requires_grad_()
        losses = pass_losses(logits, predicted, targets, LossWeights(iou_targets=which), 2)
        assert losses["loss_iou"].item() == pytest.approx(expected, rel=1e-5)
        sum(losses.values()).backward()
        touched = logits.grad.flatten(2).any(2)
        assert touched.tolist() == [[True, False, False], [False, False, True]]
        assert (predicted.grad != 0).sum() == (6 if which == "all" else 2)


def test_iou_of_empty_masks_is_one():
    nothing = torch.zeros(1, 4, 4, dtype=torch.bool)
    logits = torch.full((1, 2, 4, 4), -1.0)
    logits[0, 1, 0, 0] = 1
    assert true_iou(logits, nothing).tolist() == [[1.0, 0.0]]
