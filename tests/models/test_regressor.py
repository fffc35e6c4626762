"""The regressor: losses by closed form, normalisation and units, what a checkpoint holds."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mini_batches import SIZE
from mini_classes import image_batch
from mmengine.structures import InstanceData

from ultrasam.datasets.values import MeasuredImage
from ultrasam.datasets.values_scale import value_scale
from ultrasam.errors import ConfigError, DataError
from ultrasam.geometry.transform import SquareTransform
from ultrasam.models.regressor import ImageRegressor, value_loss

VIT = dict(type="SamBackbone", arch="vit_tiny", image_size=SIZE)


def small(seed=0, **options):
    torch.manual_seed(seed)
    return ImageRegressor(dict(VIT), **options)


def measured(values, quantity="plain", size=(60, 96), spacing=(0.5, 0.5)):
    """What a dataset tells a model before training."""
    items = [MeasuredImage("x.png", n, value, str(n), "set", spacing, size) for n, value in enumerate(values)]
    return SimpleNamespace(metainfo={"quantity": quantity}, measured=lambda: items)


def value_batch(values, quantity="plain"):
    batch = image_batch(len(values))
    for sample, value in zip(batch["data_samples"], values, strict=True):
        sample.gt_instances = InstanceData(measured=torch.tensor([value]), annotation_ids=[0])
        scale = value_scale(quantity, sample.transform, (0.5, 0.5), "x")
        sample.set_metainfo({"value_scale": scale, "quantity": quantity, "value_unit": "mm"})
    return batch


def predicted(model, batch):
    model.eval()
    found = model(**model.data_preprocessor(batch), mode="predict")
    return [torch.cat([getattr(s.pred_instances, name) for s in found]) for name in ("measured", "deviations")]


def test_losses_against_closed_forms():
    found, wanted = torch.tensor([[0.5], [3.0]]), torch.tensor([0.0, 1.0])
    assert value_loss(found, wanted, "l1", 1.0).tolist() == [0.5, 2.0]
    assert value_loss(found, wanted, "huber", 1.0).tolist() == [0.125, 1.5]
    both = torch.tensor([[0.5, 0.0], [3.0, math.log(4.0)]])
    normal = torch.distributions.Normal(both[:, 0], (0.5 * both[:, 1]).exp())
    expected = -normal.log_prob(wanted) - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(value_loss(both, wanted, "gaussian", 1.0), expected)


def test_normalisation_is_that_of_what_the_network_sees():
    model = small(quantity="length")
    values = [10.0, 20.0, 60.0]
    model.learn_from(measured(values, "length"))
    fit = SquareTransform.fit(60, 96, SIZE)
    seen = np.array(values) * value_scale("length", fit, (0.5, 0.5), "x")
    assert float(model.target_mean) == pytest.approx(seen.mean())
    assert float(model.target_std) == pytest.approx(seen.std())
    # It travels with the weights.
    other = small(1, quantity="length")
    other.load_state_dict(model.state_dict())
    assert (other.target_mean, other.target_std) == (model.target_mean, model.target_std)
    assert other.card()["target"] == {"mean": float(model.target_mean), "std": float(model.target_std),
                                      "quantity": "length"}  # fmt: skip


@pytest.mark.parametrize("quantity", ["plain", "length", "area"])
def test_predictions_come_back_in_the_unit_of_the_data(quantity):
    """A head that says 0 predicts the mean, one that says 1 the mean plus one deviation, as the network sees them."""
    model = small(quantity=quantity)
    model.learn_from(measured([10.0, 20.0, 60.0], quantity))
    torch.nn.init.zeros_(model.head.weight)
    batch = value_batch([1.0, 2.0], quantity)
    scale = batch["data_samples"][0].value_scale
    for said in (0.0, 1.0):
        torch.nn.init.constant_(model.head.bias, said)
        values, deviations = predicted(model, batch)
        expected = (float(model.target_mean) + said * float(model.target_std)) / scale
        assert values.tolist() == pytest.approx([expected] * 2, rel=1e-5)
        assert deviations.isnan().all()
    if quantity != "plain":
        # All training images have this size, so the mean seen is the mean of the values.
        torch.nn.init.zeros_(model.head.bias)
        assert predicted(model, batch)[0].tolist() == pytest.approx([30.0] * 2, rel=1e-5)


def test_gaussian_predicts_a_deviation():
    model = small(loss="gaussian")
    model.learn_from(measured([10.0, 30.0]))
    torch.nn.init.zeros_(model.head.weight)
    model.head.bias.data = torch.tensor([0.0, 2 * math.log(0.5)])
    values, deviations = predicted(model, value_batch([1.0]))
    assert values.tolist() == pytest.approx([20.0]) and deviations.tolist() == pytest.approx([5.0])


@pytest.mark.parametrize("form", ["l1", "huber", "gaussian"])
def test_training_learns(form, tmp_path):
    """Dark and bright images have different values; the head alone finds them in a few steps."""
    model = small(loss=form, trained_stages=0, cache_dir=str(tmp_path)).train()
    model.learn_from(measured([10.0, 30.0]))
    batch = value_batch([10.0, 30.0])
    batch["inputs"][0] //= 4
    optimizer = torch.optim.Adam(model.head.parameters(), 0.01)
    losses = []
    for _ in range(80):
        loss = model(**model.data_preprocessor(batch), mode="loss")["loss_value"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.2
    values, _ = predicted(model, batch)
    assert values[0] < 18 and values[1] > 22


def test_loss_is_the_mean_over_samples_in_deviations():
    model = small(loss="l1")
    model.learn_from(measured([10.0, 30.0]))
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    batch = model.data_preprocessor(value_batch([20.0, 50.0]))
    assert model(**batch, mode="loss")["loss_value"].item() == pytest.approx((0 + 3) / 2)


def test_what_is_refused():
    with pytest.raises(ConfigError, match="loss must be one of"):
        small(loss="mse")
    with pytest.raises(ConfigError, match="huber_delta above 0"):
        small(huber_delta=0.0)
    model = small()
    batch = model.data_preprocessor(value_batch([1.0]))
    with pytest.raises(ConfigError, match="LearnFromDataHook"):
        model(**batch, mode="loss")
    with pytest.raises(DataError, match="all 2 training values are the same"):
        model.learn_from(measured([5.0, 5.0]))
    with pytest.raises(ConfigError, match="predicts the quantity 'plain', the training data has 'length'"):
        model.learn_from(measured([5.0, 6.0], "length"))
    assert model.card()["target"]["mean"] is None
