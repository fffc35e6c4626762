"""The image classifier: mean of the tokens, what trains, class weights, caches."""

import pytest
import torch
from mini_batches import SIZE
from mini_classes import image_batch
from torch.nn import functional as F

from ultrasam.errors import ConfigError
from ultrasam.models.class_weights import ClassLoss, balanced_weights, check_classes
from ultrasam.models.classifier import ImageClassifier

VIT = dict(type="SamBackbone", arch="vit_tiny", image_size=SIZE)
TINY = dict(
    type="SamBackbone", arch="tiny_vit", image_size=SIZE,
    preprocessing=dict(scaling="mean_std", interpolation="bilinear"),
    sizes=dict(dims=(8, 8, 8, 8), depths=(1, 1, 1, 1), heads=(1, 1, 1, 1), windows=(7, 7, 7, 7), out_dim=16),
)  # fmt: skip


def small(seed=0, backbone=VIT, **options):
    torch.manual_seed(seed)
    return ImageClassifier(dict(backbone), ["benign", "malignant"], **options)


def loss_of(model, batch):
    return model(**model.data_preprocessor(batch), mode="loss")["loss_class"]


def predicted(model, batch):
    model.eval()
    found = model(**model.data_preprocessor(batch), mode="predict")
    return torch.cat([sample.pred_instances.probabilities for sample in found])


@pytest.mark.parametrize("backbone", [VIT, TINY], ids=["vit", "tiny_vit"])
@pytest.mark.parametrize("options", [{}, {"trained_stages": 1}, {"trained_stages": 0}, {"frozen": True}])
def test_scores_are_linear_in_the_mean_token(backbone, options):
    """Whatever trains, the answer is that of the backbone's own tokens; frozen parts round to half precision."""
    options = dict(options)
    frozen = options.pop("frozen", False)
    model = small(backbone={**backbone, "frozen": frozen}, **options).eval()
    batch = image_batch(3)
    tokens = model.backbone.tokens(model.backbone.prepare(batch["inputs"]))
    expected = F.linear(tokens.mean(1), model.head.weight, model.head.bias).softmax(1)
    torch.testing.assert_close(predicted(model, batch), expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("options", "frozen", "parts"),
    [
        ({}, False, {"backbone", "head"}),
        ({}, True, {"head"}),
        ({"trained_stages": 1}, False, {"backbone", "head"}),
        ({"trained_stages": 0}, False, {"head"}),
    ],
)
def test_what_trains_has_a_gradient_and_nothing_else(options, frozen, parts):
    model = small(backbone={**VIT, "frozen": frozen}, **options).train()
    loss_of(model, image_batch(2)).backward()
    trained = {key for key, p in model.named_parameters() if p.requires_grad}
    graded = {key for key, p in model.named_parameters() if p.grad is not None}
    assert graded == trained and {key.split(".")[0] for key in trained} == parts
    if options.get("trained_stages"):
        # The neck is not used, so the last stage is the last block.
        assert {key for key in trained if "backbone" in key} == {
            key for key, _ in model.named_parameters() if key.startswith("backbone.encoder.blocks.3.")
        }


@pytest.mark.parametrize("options", [{"trained_stages": 1}, {"frozen": True}])
def test_cache_changes_nothing(tmp_path, options):
    options = dict(options)
    backbone = {**VIT, "frozen": options.pop("frozen", False)}
    batch = image_batch(3)
    plain = small(backbone=backbone, **options)
    kept = small(backbone=backbone, cache_dir=str(tmp_path / "kept"), **options)
    for _ in range(2):
        torch.testing.assert_close(predicted(kept, batch), predicted(plain, batch), atol=0, rtol=0)
    assert len(list((tmp_path / "kept").rglob("*.npy"))) == 3
    cache = kept.cache if kept.staged is None else kept.staged.cache
    assert cache.hits == 3
    kept.load_state_dict(small(1, backbone=backbone, **options).state_dict())
    assert kept.cache is None and (kept.staged is None or kept.staged.cache is None)


def test_frozen_statistics_stay():
    model = small(backbone=TINY, trained_stages=2).train()
    assert not model.backbone.training
    before = [buffer.clone() for buffer in model.backbone.buffers()]
    loss_of(model, image_batch(2))
    assert all(torch.equal(a, b) for a, b in zip(before, model.backbone.buffers(), strict=True))


def test_lora_trains_its_products_and_the_head():
    pytest.importorskip("peft")
    pytest.importorskip("ultrasam.adapters.lora")
    model = small(adapter=dict(method="lora", rank=2, alpha=2.0, dropout=0.0)).train()
    trained = {key for key, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in key or key.startswith("head.") for key in trained)
    loss_of(model, image_batch(2)).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    # The product starts at zero, so the network starts as it was.
    plain = small()
    plain.head.load_state_dict(model.head.state_dict())
    torch.testing.assert_close(predicted(model, image_batch(2)), predicted(plain, image_batch(2)))


def test_class_loss_against_the_definition():
    torch.manual_seed(0)
    scores, labels = torch.randn(6, 3), torch.tensor([0, 0, 0, 0, 1, 2])
    plain = ClassLoss(3)(scores, labels)
    torch.testing.assert_close(plain, F.cross_entropy(scores, labels))
    weighted = ClassLoss(3, class_weights=[1.0, 2.0, 0.5])(scores, labels)
    torch.testing.assert_close(weighted, F.cross_entropy(scores, labels, weight=torch.tensor([1.0, 2.0, 0.5])))
    smooth = ClassLoss(3, label_smoothing=0.1)(scores, labels)
    torch.testing.assert_close(smooth, F.cross_entropy(scores, labels, label_smoothing=0.1))
    chosen = scores.softmax(1)[torch.arange(6), labels]
    focal = ClassLoss(3, form="focal", gamma=2.0)(scores, labels)
    torch.testing.assert_close(focal, (-(1 - chosen) ** 2 * chosen.log()).mean())
    torch.testing.assert_close(ClassLoss(3, form="focal", gamma=0.0)(scores, labels), plain)
    assert float(ClassLoss(3)(scores[:0], labels[:0])) == 0


def test_balanced_weights_give_every_class_the_same_say():
    weights = balanced_weights([30, 10, 0])
    assert (weights * torch.tensor([30.0, 10.0, 0.0])).tolist() == [20.0, 20.0, 0.0]
    loss = ClassLoss(2, class_weights="balanced")
    with pytest.raises(ConfigError, match="LearnFromDataHook"):
        loss(torch.zeros(1, 2), torch.tensor([0]))
    loss.learn_counts([3, 1])
    assert loss.weights.tolist() == pytest.approx([2 / 3, 2.0])
    fixed = ClassLoss(2, class_weights=[1.0, 5.0])
    fixed.learn_counts([3, 1])
    assert fixed.weights.tolist() == [1.0, 5.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(form="hinge"), "form of the class loss must be one of"),
        (dict(class_weights=[1.0]), "2 numbers from 0"),
        (dict(class_weights="equal"), "2 numbers from 0"),
        (dict(class_weights=[0.0, 0.0]), "not all 0"),
        (dict(label_smoothing=1.0), "label_smoothing must be in"),
        (dict(form="focal", label_smoothing=0.1), "belongs to cross_entropy"),
    ],
)
def test_wrong_losses(options, message):
    with pytest.raises(ConfigError, match=message):
        ClassLoss(2, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(backbone={**VIT, "frozen": True}, trained_stages=1), "choose one of them"),
        (dict(cache_dir="x"), "cache_dir keeps what frozen parts give"),
        (dict(trained_stages=99), "0 to 5 of them train"),
        (dict(backbone=dict(type="ResNetBackbone", blocks=(1, 1, 1, 1), image_size=64), trained_stages=1),
         "trained_stages is for SamBackbone, not for ResNetBackbone"),
    ],
)  # fmt: skip
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        small(**options)


def test_classes_must_agree():
    check_classes(("a", "b"), ["a", "b"], "x")
    with pytest.raises(ConfigError, match=r"x has \['b', 'a'\]"):
        check_classes(("b", "a"), ["a", "b"], "x")
    with pytest.raises(ConfigError, match="the same"):
        predicted(small(), image_batch(1, classes=("x", "y")))


def test_other_preprocessing_is_refused():
    with pytest.raises(ConfigError, match="was resized to"):
        predicted(small(backbone={**VIT, "image_size": 64}), image_batch(1))
