"""The runner on a CPU: sampling, precision, accumulated gradients, checkpoints kept, memory savers."""

import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from test_resume import run
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader
from toys import ToyDataset, ToyModel, toy_config

from ultrasam.engine import precision, sampling
from ultrasam.engine.build import build_runner
from ultrasam.engine.sampling import ResumableInfiniteSampler, SampleKey, SeededDataset, sample_rng
from ultrasam.errors import CheckpointError, ConfigError


def draws(size, world, position, count, monkeypatch, rank):
    monkeypatch.setattr(sampling, "process_rank", lambda: rank)
    monkeypatch.setattr(sampling, "process_count", lambda: world)
    sampler = ResumableInfiniteSampler(range(size), seed=5)
    sampler.position = position
    iterator = iter(sampler)
    return [next(iterator) for _ in range(count)]


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 13), world=st.integers(1, 5), batches=st.integers(1, 6), start=st.integers(0, 40))
def test_processes_share_the_order_of_one(size, world, batches, start):
    with pytest.MonkeyPatch.context() as monkeypatch:
        alone = draws(size, 1, start, batches * world, monkeypatch, 0)
        split = [draws(size, world, start, batches, monkeypatch, rank) for rank in range(world)]
    together = [key for group in zip(*split, strict=True) for key in group]
    assert together == alone
    assert [key.draw for key in together] == [start + k for k in range(batches * world)]


def test_each_pass_is_another_permutation():
    iterator = iter(ResumableInfiniteSampler(range(50), seed=0))
    first, second = ([int(next(iterator)) for _ in range(50)] for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second and first != list(range(50))


def test_sampler_refuses_an_empty_dataset():
    with pytest.raises(ConfigError, match="training dataset is empty"):
        ResumableInfiniteSampler([], seed=0)


def test_sample_key_survives_workers_and_concatenation():
    key = SampleKey(7, 123)
    assert pickle.loads(pickle.dumps(key)).draw == 123 and pickle.loads(pickle.dumps(key)) == 7
    assert (key - 3) == 4 and (key - 3).draw == 123

    class Echo(list):
        def __getitem__(self, index):
            return int(index), index.draw

    assert ConcatDataset([Echo([0] * 5), Echo([0] * 5)])[key] == (2, 123)


def test_sample_rng_depends_on_seed_draw_and_index():
    numbers = {
        tuple(sample_rng(seed, SampleKey(index, draw)).integers(0, 2**40, 2))
        for seed in (0, 1)
        for draw in (0, 1)
        for index in (0, 1)
    }
    assert len(numbers) == 8
    assert sample_rng(1, 4).random() == sample_rng(1, SampleKey(4, 0)).random()


def test_seeded_dataset_leaves_the_generators_alone():
    dataset = SeededDataset(ToyDataset(), seed=1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    one, two, other = dataset[3], dataset[3], dataset[SampleKey(3, 8)]
    assert torch.equal(one["inputs"], two["inputs"]) and not torch.equal(one["inputs"], other["inputs"])
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert dataset.metainfo == {"classes": ("a",)} and len(dataset) == 11
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[3]["inputs"], one["inputs"])


def test_training_needs_a_sampler_with_a_position(tmp_path):
    cfg = toy_config(tmp_path)
    cfg["train_dataloader"]["sampler"] = {"type": "InfiniteSampler"}
    with pytest.raises(ConfigError, match=r"InfiniteSampler.*ResumableInfiniteSampler"):
        build_runner(Config(cfg)).train()


def test_accumulated_gradients_equal_the_large_batch(tmp_path):
    """Two batches of 2 with mean losses are one batch of 4; without clipping, dropout and decay of rates."""

    def final(name, batch, count, iterations):
        cfg = toy_config(tmp_path / name, param_scheduler=None)
        cfg["model"] = {"type": "ToyModel", "dropout": 0.0}
        cfg["train_dataloader"]["batch_size"] = batch
        cfg["train_cfg"] = {"type": "IterBasedTrainLoop", "max_iters": iterations, "val_interval": 100}
        cfg["optim_wrapper"] = {
            "type": "OptimWrapper",
            "optimizer": {"type": "SGD", "lr": 0.05},
            "accumulative_counts": count,
        }
        runner, _ = run(cfg)
        return torch.cat([p.flatten() for p in runner.model.parameters()])

    torch.testing.assert_close(final("a", 2, 2, 12), final("b", 4, 1, 6), rtol=0, atol=1e-6)


def test_clipping_and_schedule(tmp_path):
    """Rates by hand: linear from 0.1 to 1 over 4 steps of the 5 (end exclusive), a tenth from step 8."""
    runner, record = run(toy_config(tmp_path))
    expected = [0.01 * (0.1 + 0.9 * min(k, 4) / 4) * (0.1 if k >= 8 else 1) for k in range(12)]
    # The hook reads the rate before the schedulers step.
    np.testing.assert_allclose(record.rates, expected, rtol=1e-12)
    norms = runner.message_hub.get_scalar("train/grad_norm").data[0]
    assert len(norms) == 12 and max(norms) > 0.1


def test_old_checkpoints_go_after_the_new_one_is_written(tmp_path, monkeypatch):
    cfg = toy_config(tmp_path)
    cfg["default_hooks"]["checkpoint"] |= {"interval": 3, "save_best": "mae", "rule": "less"}
    cfg["train_cfg"] |= {"val_interval": 3}
    present = []
    from ultrasam.engine import checkpointing

    write = checkpointing.write_checkpoint

    def spy(checkpoint, path):
        present.append({p.name for p in tmp_path.glob("*.pth")})
        write(checkpoint, path)

    monkeypatch.setattr(checkpointing, "write_checkpoint", spy)
    run(cfg)
    assert all(present[1:]), "a moment without any checkpoint"
    last = [{n for n in names if n.startswith("iter")} for names in present]
    assert all(names for names in last[1:])
    names = sorted(p.name for p in tmp_path.glob("*.pth"))
    assert len(names) == 2 and names[1] == "iter_12.pth" and names[0].startswith("best_mae_iter_")
    best = torch.load(tmp_path / names[0], weights_only=True)
    assert "optimizer" not in best and best["message_hub"]["runtime_info"]["best_ckpt"].endswith(names[0])
    with pytest.raises(CheckpointError, match="without the optimizer"):
        run(cfg, resume=str(tmp_path / names[0]))


def test_unknown_metric_of_save_best_names_the_known(tmp_path):
    cfg = toy_config(tmp_path)
    cfg["default_hooks"]["checkpoint"] |= {"save_best": "dice", "rule": "greater"}
    with pytest.raises(
        ConfigError, match="'dice', which validation does not compute; it computes mae, count, odd"
    ):
        run(cfg)


def test_bfloat16_on_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "cpu_computes_bfloat16", lambda: True)
    cfg = toy_config(tmp_path)
    cfg["optim_wrapper"] |= {"type": "AmpOptimWrapper", "dtype": "bfloat16"}
    runner, record = run(cfg)
    seen = []
    runner.model.body[0].register_forward_hook(lambda _m, _i, output: seen.append(output.dtype))
    batch = {"inputs": [torch.randn(4)] * 2, "targets": [torch.zeros(())] * 2}
    runner.model.train_step(batch, runner.optim_wrapper)
    assert seen == [torch.bfloat16]
    assert {p.dtype for p in runner.model.parameters()} == {torch.float32}
    _, exact = run(toy_config(tmp_path / "exact"))
    assert record.losses != exact.losses
    np.testing.assert_allclose(record.losses, exact.losses, rtol=0.1, atol=0.05)


def test_a_cpu_without_bfloat16_trains_in_float32(monkeypatch):
    """There bfloat16 is many times slower than float32; a user of --amp would wait for days."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    told = []
    monkeypatch.setattr(precision, "print_log", lambda text, **_: told.append(text))
    cfg = {"type": "AmpOptimWrapper", "dtype": "bfloat16", "optimizer": {"type": "AdamW", "lr": 1.0}}
    for able, kind in ((False, "OptimWrapper"), (True, "BFloat16OptimWrapper")):
        monkeypatch.setattr(precision, "cpu_computes_bfloat16", lambda able=able: able)
        resolved = precision.resolve_optim_wrapper(cfg)
        assert resolved == {"type": kind, "optimizer": cfg["optimizer"]}
        assert precision.resolve_optim_wrapper(resolved)["type"] == kind
    assert len(told) == 1 and "it trains in float32" in told[0]


def test_optimizer_configuration_follows_the_machine(monkeypatch):
    cfg = {"type": "OptimWrapper", "optimizer": {"type": "AdamW", "lr": 1.0, "fused": "auto"}}
    assert "fused" not in precision.resolve_optim_wrapper(cfg)["optimizer"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert precision.resolve_optim_wrapper(cfg)["optimizer"]["fused"] is True
    assert cfg["optimizer"]["fused"] == "auto"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Old GPU")
    with pytest.raises(ConfigError, match="Old GPU does not compute in bfloat16"):
        precision.resolve_optim_wrapper(cfg, amp=True)


def test_half_precision_needs_a_gpu():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match="float16 needs a GPU"):
        precision.resolve_optim_wrapper({"type": "AmpOptimWrapper", "optimizer": {}})


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.calls = 0

    def forward(self, x, *, power=1):
        self.calls += 1
        return self.linear(x).tanh() ** power


def test_recomputed_activations_give_the_same_gradients():
    torch.manual_seed(0)
    model = nn.Sequential(Counting(), Counting())
    x = torch.randn(4, 3)

    def gradients():
        model.zero_grad()
        model[1](model[0](x), power=2).sum().backward()
        return [p.grad.clone() for p in model.parameters()]

    plain = gradients()
    assert precision.recompute_activations(model, ["*"]) == 4
    for a, b in zip(plain, gradients(), strict=True):
        assert torch.equal(a, b)
    assert model[0].calls == 3, "once before, twice with recomputation"
    model.eval()
    gradients()
    assert model[0].calls == 4
    with pytest.raises(
        ConfigError, match="'blocks', which matches no module of Sequential; its children are 0, 1"
    ):
        precision.recompute_activations(model, "blocks")


def test_modules_compile_in_place():
    model = ToyModel(dropout=0.0)
    names = list(model.state_dict())
    batch = [torch.randn(4)] * 2, [torch.zeros(())] * 2
    before = model(*batch)["loss"]
    assert precision.compile_modules(model, ["body"], backend="eager") == 1
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model(*batch)["loss"], before)


def test_loader_settings_of_workers_are_dropped_without_workers(tmp_path):
    cfg = toy_config(tmp_path)
    cfg["val_dataloader"] |= {"persistent_workers": True, "prefetch_factor": 4}
    runner = build_runner(Config(cfg))
    loader = runner.build_dataloader(cfg["val_dataloader"], seed=0)
    assert isinstance(loader, DataLoader) and not loader.persistent_workers
