"""The detector: modes, any number of objects, chunks, refinement, frozen parts, and values that do not exist."""

import json
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mini_batches import LOW, SIZE, batch_of, packed, small_detector
from torch.nn import functional as F

from ultrasam.datasets.transforms import FitSquare
from ultrasam.errors import ConfigError
from ultrasam.modeling.prompt_encoder import Prompts
from ultrasam.models.detector import best_logits
from ultrasam.models.joined_prompts import join_prompts
from ultrasam.models.postprocess import box_of_masks, masks_at_original_size

REFINED = {"loss_focal", "loss_dice", "loss_iou", "loss_focal.0", "loss_dice.0", "loss_iou.0"}


@pytest.fixture(scope="module")
def detector():
    return small_detector().eval()


def step(detector, *counts, **arguments):
    """Losses and gradients of one training step."""
    detector.zero_grad(set_to_none=True)
    losses = detector(**detector.data_preprocessor(batch_of(*counts, **arguments), True), mode="loss")
    sum(losses.values()).backward()
    gradients = {name: p.grad for name, p in detector.named_parameters() if p.requires_grad}
    return {name: value.detach() for name, value in losses.items()}, gradients


def predictions(detector, data):
    return [sample.pred_instances for sample in detector.test_step(data)]


@pytest.mark.parametrize("counts", [(0,), (1,), (21,), (0, 3, 1), (0, 0)])
def test_modes_with_any_number_of_objects(detector, counts):
    data = batch_of(*counts)
    losses, _ = step(detector, *counts)
    assert losses.keys() == REFINED
    assert all(value.isfinite() and value.ndim == 0 for value in losses.values())
    assert (sum(losses.values()) > 0) == (sum(counts) > 0)
    for found, sample, count in zip(predictions(detector, data), data["data_samples"], counts, strict=True):
        assert found.masks.shape == (count, *sample.ori_shape) and found.masks.dtype == torch.bool
        assert found.bboxes.shape == (count, 4) and found.scores.shape == found.labels.shape == (count,)
        torch.testing.assert_close(found.bboxes, box_of_masks(found.masks))
    batch = detector.data_preprocessor(data)
    with torch.no_grad():
        logits, iou = detector(**batch, mode="tensor")
        embeddings = detector(batch["inputs"], mode="tensor")
    assert logits.shape == (sum(counts), 3, LOW, LOW) and iou.shape == (sum(counts), 3)
    assert embeddings.shape == (len(counts), 256, SIZE // 16, SIZE // 16)


def test_three_hundred_objects():
    detector = small_detector(image_size=64, decode_chunk=8).eval()
    item = packed(0, 300, fit=FitSquare(64, target_size=16))
    data = {key: [value] for key, value in item.items()}
    (found,) = predictions(detector, data)
    assert found.masks.shape == (300, 60, 96)
    losses = detector(**detector.data_preprocessor(data, True), mode="loss")
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in detector.parameters() if p.requires_grad)
    assert all(value > 0 for value in losses.values())
    detector.decode_chunk = 300
    (whole,) = predictions(detector, data)
    torch.testing.assert_close(found.scores, whole.scores, rtol=0, atol=1e-5)
    assert (found.masks != whole.masks).float().mean() < 1e-5


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_chunks_change_nothing(detector, monkeypatch, mode):
    detector.train(mode)
    outcomes = []
    for chunk in (1, 5, 100):
        monkeypatch.setattr(detector, "decode_chunk", chunk)
        outcomes.append(step(detector, 7, 0, 4))
    for losses, gradients in outcomes[:2]:
        for name, value in outcomes[2][0].items():
            torch.testing.assert_close(losses[name], value, rtol=0, atol=1e-5)
        for name, value in outcomes[2][1].items():
            torch.testing.assert_close(gradients[name], value, rtol=1e-3, atol=1e-5, msg=name)
    detector.eval()


def test_chunks_draw_one_dropout_for_forward_and_backward(monkeypatch):
    """The backward pass computes a chunk again; other draws there would give gradients of another function."""
    detector = small_detector(dropout=0.5, decode_chunk=2).train()
    torch.manual_seed(1)
    first = step(detector, 5)
    torch.manual_seed(1)
    second = step(detector, 5)
    torch.manual_seed(2)
    other = step(detector, 5)
    assert first[0] == second[0] != other[0]
    bias = detector.sam.mask_decoder.iou_prediction_head.layers[-1].bias
    direction = first[1]["sam.mask_decoder.iou_prediction_head.layers.2.bias"].clone()
    values = []
    for shift in (-1e-3, 1e-3):
        with torch.no_grad():
            bias += shift * direction
        torch.manual_seed(1)
        values.append(float(sum(step(detector, 5)[0].values())))
        with torch.no_grad():
            bias -= shift * direction
    assert (values[1] - values[0]) / 2e-3 == pytest.approx(float(direction.square().sum()), rel=0.02)


def test_images_and_objects_do_not_influence_each_other(detector):
    data = batch_of(0, 3, 1)
    together = predictions(detector, data)
    for number, expected in enumerate(together):
        (alone,) = predictions(detector, {key: [value[number]] for key, value in data.items()})
        torch.testing.assert_close(alone.scores, expected.scores, rtol=0, atol=1e-5)
        assert (alone.masks != expected.masks).float().sum() <= 2
    batch = detector.data_preprocessor(batch_of(5))
    with torch.no_grad():
        embeddings = detector.extract_feat(batch["inputs"])
        prompts = join_prompts(batch["data_samples"], torch.device("cpu"))
        whole = detector.run_passes(embeddings, prompts)
        assert len(set(whole[-1][1][:, 0].tolist())) == 5
        for row in range(5):
            for (logits, iou), (all_logits, all_iou) in zip(
                detector.run_passes(embeddings, prompts.select(slice(row, row + 1))), whole, strict=True
            ):
                torch.testing.assert_close(logits[0], all_logits[row], rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(iou[0], all_iou[row], rtol=0, atol=1e-5)


def test_tokens_of_a_batch_keep_their_images(detector):
    """Images with prompts of different lengths: shorter rows are padded, longer ones are not cut."""
    samples = [packed(number, count, "point")["data_samples"] for number, count in enumerate((2, 0, 1))]
    prompts = samples[2].prompt_instances
    prompts.coords = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    prompts.labels = torch.tensor([[1, 0, -1]])
    joined = join_prompts(samples, torch.device("cpu"))
    assert joined.image_index.tolist() == [0, 0, 2]
    assert joined.labels.tolist() == [[1, -1, -2], [1, -1, -2], [1, 0, -1]]
    torch.testing.assert_close(joined.coords[:2, :2], samples[0].prompt_instances.coords)
    torch.testing.assert_close(joined.coords[2:], prompts.coords)


def test_last_pass_in_tensor_mode_is_what_predict_shows(detector):
    data = batch_of(2, 1)
    batch = detector.data_preprocessor(data)
    with torch.no_grad():
        logits, iou = detector(**batch, mode="tensor")
    found = predictions(detector, data)
    torch.testing.assert_close(torch.cat([each.scores for each in found]), iou.amax(1))
    masks = masks_at_original_size(best_logits(logits, iou), data["data_samples"][0].transform)
    assert torch.equal(torch.cat([each.masks for each in found]), masks)


@pytest.mark.parametrize(
    ("passes", "suffixes", "candidates"),
    [(("single",), [""], 1), (("multi",), [""], 3), (("single", "multi", "multi"), ["", ".0", ".1"], 3)],
)
def test_passes(passes, suffixes, candidates):
    detector = small_detector(passes=passes)
    losses, gradients = step(detector, 2, 1)
    names = ("loss_focal", "loss_dice", "loss_iou")
    assert list(losses) == [name + suffix for suffix in suffixes for name in names]
    assert all(gradient is not None for gradient in gradients.values())
    with torch.no_grad():
        assert detector(**detector.data_preprocessor(batch_of(1)), mode="tensor")[0].shape[1] == candidates


@pytest.mark.parametrize("mask_prompt", [True, False])
def test_second_pass_gets_the_best_mask_of_the_first(mask_prompt):
    detector = small_detector(passes=("multi", "multi"), mask_prompt=mask_prompt).eval()
    batch = detector.data_preprocessor(batch_of(3))
    with torch.no_grad():
        embeddings = detector.extract_feat(batch["inputs"])
        prompts = join_prompts(batch["data_samples"], torch.device("cpu"))
        (logits, iou), (second, _) = detector.run_passes(embeddings, prompts)
        best = torch.stack([logits[row, int(iou[row].argmax())] for row in range(3)])
        masks = best[:, None] if mask_prompt else None
        expected = detector.sam.decode(embeddings, Prompts(*vars_of(prompts), masks), True)[0]
    torch.testing.assert_close(second, expected)


def vars_of(prompts):
    return prompts.coords, prompts.labels, prompts.image_index


def test_a_click_becomes_the_box_of_its_mask(detector, monkeypatch):
    samples = [packed(number, 2, kind)["data_samples"] for number, kind in enumerate(("point", "box", "point"))]
    prompts = join_prompts(samples, torch.device("cpu"))
    logits = torch.full((6, LOW, LOW), -1.0)
    for row in range(5):
        logits[row, 3 + row : 9 + 2 * row, 5 : 12 + row] = 1
    changed = detector.points_to_boxes(prompts, logits, samples)
    for row, sample in enumerate([samples[0]] * 2 + [samples[1]] * 2 + [samples[2]] * 2):
        if row in (2, 3, 5):  # boxes, and a click whose mask is empty, stay
            assert changed.labels[row].tolist() == prompts.labels[row].tolist()
            assert torch.equal(changed.coords[row], prompts.coords[row])
            continue
        mask = masks_at_original_size(logits[row : row + 1], sample.transform)[0].numpy()
        ys, xs = np.nonzero(mask)
        box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) * (SIZE / 96)
        assert changed.labels[row].tolist() == [2, 3]
        np.testing.assert_allclose(changed.coords[row].flatten(), box - 0.5, atol=1e-4)
    monkeypatch.setattr(detector, "refine_with_box", True)
    given = []

    def decode(embeddings, tokens, *_):
        given.append(tokens.coords)
        return logits[:, None], torch.ones(6, 1)

    monkeypatch.setattr(detector.sam, "decode", decode)
    detector.run_passes(torch.zeros(1), prompts, samples)
    detector.run_passes(torch.zeros(1), prompts)
    for found, expected in zip(given, [prompts.coords, changed.coords, prompts.coords, prompts.coords], strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("order", ["logits", "released"])
def test_mask_order(order):
    detector = small_detector(mask_order=order, passes=("multi",)).eval()
    data = batch_of(3, prompt="box")
    batch = detector.data_preprocessor(data)
    with torch.no_grad():
        low = best_logits(*detector(**batch, mode="tensor"))[:, None]
    low = low if order == "logits" else (low > 0).float()
    large = F.interpolate(low, (SIZE, SIZE), mode="bilinear", align_corners=False)[..., :80, :]
    large = F.interpolate(large, (60, 96), mode="bilinear", align_corners=False)[:, 0]
    (found,) = predictions(detector, data)
    assert torch.equal(found.masks, large > 0)


def test_frozen_encoder_keeps_weights_and_statistics():
    detector = small_detector(arch="tiny_vit", image_size=SIZE, freeze=["image_encoder"])
    encoder = detector.sam.image_encoder
    assert not any(module.training for module in encoder.modules()), "evaluation mode from the start"
    detector.train()
    assert detector.sam.mask_decoder.training and not any(module.training for module in encoder.modules())
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    assert any("running_mean" in name for name in before)
    # LiteMedSAM's own preprocessing: low-resolution masks of the square's size.
    fit = FitSquare(SIZE, interpolation="area", target_size=detector.sam.low_res_size)
    items = [packed(seed, 2, fit=fit) for seed in range(2)]
    data = {key: [item[key] for item in items] for key in ("inputs", "data_samples")}
    losses = detector(**detector.data_preprocessor(data, True), mode="loss")
    sum(losses.values()).backward()
    trainable = [p for p in detector.parameters() if p.requires_grad]
    torch.optim.SGD(trainable, 0.1).step()
    assert all(p.grad is not None for p in trainable)
    assert all(p.grad is None and not p.requires_grad for p in encoder.parameters())
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("part", ["prompt_encoder", "mask_decoder"])
def test_other_frozen_parts(part):
    detector = small_detector(freeze=[part]).train()
    _, gradients = step(detector, 2)
    assert not getattr(detector.sam, part).training and detector.sam.image_encoder.training
    assert gradients and not any(part in name for name in gradients)
    assert all(gradient is not None for gradient in gradients.values())


@pytest.mark.parametrize("options", [{}, {"passes": ("multi",)}, {"passes": ("single",)}, {"mask_prompt": False}])
@pytest.mark.parametrize("counts", [(2, 1), (0, 0)], ids=["objects", "negatives"])
def test_every_trainable_parameter_gets_a_gradient(options, counts):
    detector = small_detector(**options).train()
    losses, gradients = step(detector, *counts)
    missing = [name for name, gradient in gradients.items() if gradient is None]
    assert not missing
    unused = {name for name, p in detector.named_parameters() if not p.requires_grad}
    assert bool(unused) == bool(options)
    if not sum(counts):
        assert not any(gradient.any() for gradient in gradients.values())
        assert float(sum(losses.values())) == 0


def test_card(detector):
    card = small_detector(passes=("multi",), freeze=["image_encoder"]).card()
    assert json.loads(json.dumps(card))["preprocessing"]["square"] == SIZE
    assert (card["architecture"], card["passes"], card["frozen"]) == ("vit_tiny", ["multi"], ["image_encoder"])
    assert card["mlp_residual"] == "single" and detector.card()["passes"] == ["single", "multi"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arch": "vit_x"}, "unknown architecture 'vit_x'"),
        ({"image_size": 100}, "multiple of 16, got 100"),
        ({"preprocessing": {"mode": "crop"}}, "'pad' or 'squash', got 'crop'"),
        ({"preprocessing": {"sqare": 3}}, "sqare"),
        ({"loss": {"iou_form": "l2"}}, "'l1' or 'mse', got 'l2'"),
        ({"loss": {"focl": 2}}, "focl"),
        ({"passes": ("double",)}, "'single', 'multi', got"),
        ({"passes": "single"}, "passes must hold only"),
        ({"passes": ()}, "at least one of"),
        ({"freeze": ["encoder"]}, "'image_encoder', 'prompt_encoder', 'mask_decoder', got"),
        ({"mask_order": "binary"}, "'logits', 'released', got"),
        ({"decode_chunk": 0}, "decode_chunk must be at least 1, got 0"),
        ({"cache_bytes": 0}, "cache_bytes must be at least 1, got 0"),
    ],
)
def test_wrong_values(arguments, message):
    with pytest.raises(ConfigError, match=message) as error:
        small_detector(**arguments)
    assert "\n" not in str(error.value)


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.integers(0, 4), st.integers(1, 12), st.integers(1, 12))))
def test_boxes_of_masks(masks):
    found = box_of_masks(torch.from_numpy(masks))
    expected = np.zeros((len(masks), 4), np.float32)
    for row, mask in enumerate(masks):
        ys, xs = np.nonzero(mask)
        if len(ys):
            expected[row] = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), expected)


def test_training_lowers_the_loss():
    """A sign error anywhere between prompt and loss would show here."""
    detector = small_detector().train()
    data = batch_of(2, 1, prompt="box")
    optimizer = torch.optim.AdamW([p for p in detector.parameters() if p.requires_grad], 1e-3)
    totals = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(25):
            optimizer.zero_grad()
            total = sum(detector(**detector.data_preprocessor(data, True), mode="loss").values())
            total.backward()
            optimizer.step()
            totals.append(total.item())
    assert totals[-1] < 0.6 * totals[0]
