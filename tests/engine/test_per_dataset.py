"""Losses by data set: the right means, over processes with different data sets, without a trace in the training."""

import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import LoggerHook

import ultrasam.engine.per_dataset as per_dataset
from ultrasam.engine.per_dataset import ObjectScores, PerDatasetHook, joined
from ultrasam.errors import ConfigError

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from mini_batches import batch_of, small_detector


def sample(name, targets):
    return SimpleNamespace(get=lambda key, default=None: name, gt_instances=SimpleNamespace(targets=targets))


def noted(scores, names, seed):
    """Give random outcomes of two objects an image; return (name, dice, iou) of each object from the definitions."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2 * len(names), 3, 8, 8, generator=generator)
    predicted = torch.rand(2 * len(names), 3, generator=generator)
    targets = torch.rand(2 * len(names), 8, 8, generator=generator) > 0.6
    scores([sample(name, targets[2 * i : 2 * i + 2]) for i, name in enumerate(names)], logits, predicted, targets)
    rows = []
    for i in range(len(targets)):
        truth = targets[i].numpy()
        masks = logits[i].numpy() > 0
        ious = [(mask & truth).sum() / (mask | truth).sum() for mask in masks]
        p = 1 / (1 + np.exp(-logits[i, int(np.argmax(ious))].numpy().astype(float)))
        dice = 1 - 2 * (p * truth).sum() / ((p**2).sum() + truth.sum() + 2)
        rows.append((names[i // 2], dice, ious[int(predicted[i].argmax())]))
    return rows


def means(rows):
    found = {}
    for name in sorted({row[0] for row in rows}):
        mine = np.array([row[1:] for row in rows if row[0] == name])
        found |= {f"by_data_set/{name}/dice_loss": mine[:, 0].mean(), f"by_data_set/{name}/iou": mine[:, 1].mean(),
                  f"by_data_set/{name}/objects": len(mine)}  # fmt: skip
    return found


class Recorder:
    """The parts of a runner that the hook uses."""

    def __init__(self, model, interval=2):
        self.iter, self.bare_model, self.lines = 0, model, []
        self.hooks = [LoggerHook(interval=interval)]
        self.logger = logging.getLogger("test_per_dataset")
        self.visualizer = SimpleNamespace(add_scalars=lambda rows, step: self.lines.append((step, rows)))


def test_means_over_processes_that_hold_different_sets(monkeypatch):
    """Two processes; both have b, one a, the other c; the line after them has none of what was before."""
    here, there = SimpleNamespace(observer=None), ObjectScores()
    runner, hook = Recorder(here), PerDatasetHook()
    monkeypatch.setattr(per_dataset, "gather_to_all", lambda value: [value, there.take()])
    hook.before_train(runner)
    steps = [(["a", "b"], ["b", "c", "c"]), (["a"], ["c"]), ([], []), (["b"], ["c"])]
    rows = []
    for number, (mine, other) in enumerate(steps):
        rows.append(noted(here.observer, mine, number) + noted(there, other, 10 + number))
        runner.iter = number
        hook.after_train_iter(runner, number)
    assert [step for step, _ in runner.lines] == [2, 4]
    for (_, found), expected in zip(runner.lines, (means(rows[0] + rows[1]), means(rows[2] + rows[3])), strict=True):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, abs=1e-6), name
    assert {name.split("/")[1] for name in runner.lines[1][1]} == {"b", "c"}
    hook.after_train(runner)
    assert here.observer is None


def test_nothing_to_tell_is_no_line(monkeypatch):
    runner, hook = Recorder(SimpleNamespace(observer=None)), PerDatasetHook(interval=1)
    hook.before_train(runner)
    hook.after_train_iter(runner, 0)
    assert not runner.lines and joined([{}, {}]) == {}


def test_training_is_the_same_and_the_mean_is_the_loss():
    """One image of a set, one of another, one without objects: losses and gradients to the bit, twice."""
    outcomes, scores = [], ObjectScores()
    for observer in (None, scores):
        detector = small_detector(dropout=0.1).train()
        detector.observer = observer
        torch.manual_seed(5)
        data = batch_of(2, 0, 3)
        data["data_samples"][2].set_metainfo({"dataset": "other"})
        losses = detector(**detector.data_preprocessor(data, True), mode="loss")
        sum(losses.values()).backward()
        gradients = {name: p.grad for name, p in detector.named_parameters() if p.grad is not None}
        outcomes.append({**losses, **gradients, "next": torch.rand(1)})
    assert outcomes[0].keys() == outcomes[1].keys() and len(outcomes[0]) > 50
    assert all(torch.equal(value, outcomes[1][name]) for name, value in outcomes[0].items())
    found = scores.take()
    assert {name: values[0] for name, values in found.items()} == {"mini": 2, "other": 3}
    total = sum(values[1] for values in found.values()) / 5
    assert total == pytest.approx(float(outcomes[1]["loss_dice.0"].detach()), abs=1e-6)
    assert scores.take() == {}


def test_another_model_is_refused():
    with pytest.raises(ConfigError, match=r"PerDatasetHook needs a model .* Linear does not"):
        PerDatasetHook().before_train(Recorder(torch.nn.Linear(1, 1)))
