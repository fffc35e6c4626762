"""A teacher's soft targets beside the annotations: values against the formula, whom it teaches, what it shares."""

import json
import math

import pytest
import torch
from mini_batches import SIZE, batch_of, small_detector

from ultrasam.checkpoints.saving import save_checkpoint
from ultrasam.errors import CheckpointError, ConfigError
from ultrasam.modeling.build import build_sam
from ultrasam.modeling.losses import LossWeights, focal_loss, pass_losses
from ultrasam.models.detector import best_logits
from ultrasam.models.joined_prompts import join_prompts


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory):
    """Weights of another random network of the same kind."""
    torch.manual_seed(5)
    sam = build_sam("vit_tiny", SIZE)
    with torch.no_grad():
        # Random weights answer one half everywhere; this one has an opinion.
        sam.mask_decoder.output_hypernetworks_mlps[0].layers[-1].weight *= 100
    path = tmp_path_factory.mktemp("teacher") / "teacher.pth"
    save_checkpoint(path, sam.state_dict(), {"architecture": "vit_tiny", "preprocessing": sam.preprocessing.to_dict()})
    return str(path)


def losses_of(detector, *counts, prompt="mixed"):
    batch = detector.data_preprocessor(batch_of(*counts, prompt=prompt), True)
    return batch, detector(**batch, mode="loss")


def entropy(logit, probability):
    """Cross-entropy of one pixel, in plain floating point."""
    p = 1 / (1 + math.exp(-logit))
    return -(probability * math.log(p) + (1 - probability) * math.log(1 - p))


@pytest.mark.parametrize("arguments", [{}, {"freeze": ["image_encoder"]}, {"method": "lora", "adapter": {"rank": 2}}])
def test_the_loss_is_the_cross_entropy_with_the_teachers_answers_to_boxes(teacher_file, arguments):
    detector = small_detector(teacher={"weights": teacher_file, "weight": 3.0}, **arguments).eval()
    batch, losses = losses_of(detector, 3, 2)
    other = small_detector(seed=9, weights=teacher_file).eval()
    with torch.no_grad():
        prompts = join_prompts(batch["data_samples"], torch.device("cpu"))
        answers = best_logits(*detector.run_passes(detector.extract_feat(batch["inputs"]), prompts)[-1])
        taught, _ = other.sam.decode(other.extract_feat(batch["inputs"]), prompts, False)
    boxes = [row for row, labels in enumerate(prompts.labels.tolist()) if 2 in labels]
    assert 0 < len(boxes) < len(prompts)
    total = 0.0
    for row in boxes:
        pairs = zip(answers[row].flatten().tolist(), taught[row, 0].sigmoid().flatten().tolist(), strict=True)
        total += sum(entropy(*pair) for pair in pairs) / answers[row].numel()
    assert losses["loss_teacher"].item() == pytest.approx(3 * total / len(prompts), rel=1e-4)


def test_a_teacher_of_all_prompts_teaches_points_too(teacher_file):
    boxes, everything = (
        small_detector(teacher={"weights": teacher_file, "prompts": kind}).eval() for kind in ("box", "all")
    )
    assert losses_of(boxes, 2, prompt="point")[1]["loss_teacher"] == 0
    assert losses_of(everything, 2, prompt="point")[1]["loss_teacher"] > 0


def test_the_student_moves_towards_its_teacher(teacher_file):
    nothing = {"focal": 0.0, "dice": 0.0, "iou": 0.0}
    detector = small_detector(teacher={"weights": teacher_file, "prompts": "all"}, loss=nothing)
    optimizer = torch.optim.Adam((p for p in detector.parameters() if p.requires_grad), 1e-3)
    found = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = losses_of(detector, 3)[1]["loss_teacher"]
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    assert found[-1] < 0.95 * found[0]


def test_features_of_equal_stages_are_made_once(teacher_file, monkeypatch):
    arguments = {"freeze": ["image_encoder"], "trained_stages": 2, "teacher": {"weights": teacher_file}}
    apart, shared = small_detector(**arguments), small_detector(weights=teacher_file, **arguments)
    # The trained stages may differ; the student's weights before them are the teacher's.
    with torch.no_grad():
        for parameter in shared.sam.image_encoder.neck.parameters():
            parameter += 0.1
    calls = []
    monkeypatch.setattr(shared.teacher.sam, "encode", lambda images: calls.append(1))
    same = small_detector(weights=teacher_file, **arguments)
    same.load_state_dict(shared.state_dict())
    monkeypatch.setattr(same.teacher, "shares_stages", lambda *_: False)
    found, whole = losses_of(shared.eval(), 2, 1)[1], losses_of(same.eval(), 2, 1)[1]
    assert not calls
    # The shared features are rounded to half precision.
    assert found["loss_teacher"].item() == pytest.approx(whole["loss_teacher"].item(), rel=1e-3)
    losses_of(apart, 1)
    assert apart.teacher.shares is False and shared.teacher.shares is True
    apart.sam.load_state_dict(shared.sam.state_dict())
    losses_of(apart, 1)
    assert apart.teacher.shares is True


def test_a_teacher_is_in_no_state_and_never_trains(teacher_file):
    detector = small_detector(teacher={"weights": teacher_file})
    assert detector.state_dict().keys() == small_detector().state_dict().keys()
    before = {name: value.clone() for name, value in detector.teacher.sam.state_dict().items()}
    sum(losses_of(detector, 2)[1].values()).backward()
    assert all(p.grad is None for p in detector.teacher.sam.parameters())
    assert all(torch.equal(value, before[name]) for name, value in detector.teacher.sam.state_dict().items())
    json.dumps(detector.card())


def test_a_batch_without_objects_has_a_loss_of_zero(teacher_file):
    detector = small_detector(teacher={"weights": teacher_file})
    assert losses_of(detector, 0, 0)[1]["loss_teacher"] == 0


@pytest.mark.parametrize(("options", "message"), [
    ({}, "needs weights"), ({"weights": "x", "alpha": 1}, "'alpha'"), ({"weights": "x", "weight": 0}, "weight"),
    ({"weights": "x", "weight": "2"}, "weight"), ({"weights": "x", "prompts": "points"}, "'points'"),
])  # fmt: skip
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        small_detector(teacher=options)


def test_weights_of_another_network_are_refused():
    with pytest.raises(CheckpointError):
        small_detector(teacher={"weights": "litemedsam"})


def test_samus_sees_other_images_than_a_teacher(teacher_file):
    with pytest.raises(ConfigError, match="samus"):
        small_detector(teacher={"weights": teacher_file}, method="samus", adapter={"image_size": 64})


@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_the_focal_loss_weighs_both_sides_as_told(alpha):
    from torchvision.ops import sigmoid_focal_loss

    logits = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    targets = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.5
    found = pass_losses(logits, torch.zeros(2, 1), targets, LossWeights(focal=1.0, focal_alpha=alpha), 1.0)
    expected = sigmoid_focal_loss(logits[:, 0], targets.float(), alpha=alpha, gamma=2.0).flatten(1).mean(1).sum()
    torch.testing.assert_close(found["loss_focal"], expected)
    assert not torch.allclose(focal_loss(logits[:, 0], targets).sum(), expected)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0])
def test_a_focal_loss_of_one_side_only_is_refused(alpha):
    with pytest.raises(ConfigError, match="focal_alpha"):
        small_detector(loss={"focal_alpha": alpha})
