"""Stopping and continuing must change nothing, and checkpoints must survive anything."""

import copy
import pickle

import numpy as np
import pytest
import torch
from mmengine.config import Config
from toys import toy_config

from ultrasam.engine import checkpointing as ckpt
from ultrasam.engine.build import build_runner
from ultrasam.errors import CheckpointError


def run(cfg, stop_after=None, resume=None):
    cfg = copy.deepcopy(cfg)
    cfg["custom_hooks"] = [{"type": "RecordLosses", "stop_after": stop_after}]
    cfg["resume"], cfg["load_from"] = resume is not None, resume
    runner = build_runner(Config(cfg))
    runner.train()
    record = next(hook for hook in runner.hooks if type(hook).__name__ == "RecordLosses")
    return runner, record


def assert_same(left, right, where="state"):
    """Bit-for-bit comparison of nested plain values."""
    assert type(left) is type(right), where
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            assert_same(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), where
        for number, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_same(a, b, f"{where}[{number}]")
    else:
        assert left == right, where


@pytest.mark.parametrize("workers", [0, 2])
def test_half_and_half_is_the_whole(tmp_path, workers):
    """11 samples in batches of 2: iteration 6 lies inside the second pass; validation runs at 4, 8 and 12."""
    whole = toy_config(tmp_path / "whole")
    whole["train_dataloader"] |= {"num_workers": workers, "persistent_workers": True}
    halves = {**whole, "work_dir": str(tmp_path / "halves")}
    runner, record = run(whole)
    _, first = run(halves, stop_after=6)
    resumed, second = run(halves, resume=str(ckpt.latest_checkpoint(tmp_path / "halves")))
    assert first.losses + second.losses == record.losses
    assert first.rates + second.rates == record.rates
    assert len(set(record.losses)) == 12
    assert_same(
        ckpt.to_plain(runner.optim_wrapper.state_dict(), "o"),
        ckpt.to_plain(resumed.optim_wrapper.state_dict(), "o"),
    )
    one = ckpt.read_checkpoint(tmp_path / "whole" / "iter_12.pth")
    two = ckpt.read_checkpoint(tmp_path / "halves" / "iter_12.pth")
    for key in ("state_dict", "optimizer", "param_schedulers", "random_states", "data"):
        assert_same(one[key], two[key], key)
    for name in ("train/loss", "val/mae"):
        assert one["message_hub"]["log_scalars"][name] == two["message_hub"]["log_scalars"][name]


def test_workers_do_not_change_the_losses(tmp_path):
    cfg = toy_config(tmp_path / "a")
    _, none = run(cfg)
    cfg["train_dataloader"] |= {"num_workers": 2}
    _, two = run({**cfg, "work_dir": str(tmp_path / "b")})
    assert none.losses == two.losses


def test_validation_does_not_change_training(tmp_path):
    cfg = toy_config(tmp_path / "a")
    _, often = run(cfg)
    cfg["train_cfg"] = {"type": "IterBasedTrainLoop", "max_iters": 12, "val_interval": 100}
    _, rarely = run({**cfg, "work_dir": str(tmp_path / "b")})
    assert often.losses == rarely.losses


def test_checkpoint_opens_without_pickled_classes(tmp_path):
    run(toy_config(tmp_path))
    saved = torch.load(tmp_path / "iter_12.pth", weights_only=True)
    assert saved["meta"]["iter"] == 12 and saved["meta"]["seed"] == 3
    assert "ToyModel" in saved["meta"]["cfg"]
    training = saved["card"].pop("training")
    assert saved["card"] == {"architecture": "toy", "width": 8}
    assert (training["images"], set(training["sets"])) == (11, {"ToyDataset"})
    assert saved["data"] == {"position": 24, "seed": 3, "size": 11}
    assert len(saved["message_hub"]["log_scalars"]["train/loss"]["log"]) == 12
    assert len(saved["random_states"]) == 1


def test_resume_refuses_another_architecture(tmp_path):
    cfg = toy_config(tmp_path)
    run(cfg, stop_after=6)
    cfg["model"] = {"type": "ToyModel", "width": 9}
    with pytest.raises(
        CheckpointError, match=r"another architecture than ToyModel: 3 have another shape .*body.0"
    ):
        run(cfg, resume=str(tmp_path / "iter_6.pth"))


def test_card_decides_the_form_of_the_network(tmp_path):
    class Network(torch.nn.Linear):
        form = "single"

        def set_mlp_residual(self, form):
            self.form = form

        def card(self):
            return {"architecture": "toy", "mlp_residual": self.form}

    saved, fresh = Network(2, 2), Network(2, 2)
    card = {"architecture": "toy", "mlp_residual": "double"}
    path = tmp_path / "w.pth"
    ckpt.write_checkpoint({"format": ckpt.FORMAT, "card": card, "state_dict": saved.state_dict()}, path)
    assert "all 2 weights" in ckpt.load_weights(fresh, path)
    assert fresh.form == "double" and torch.equal(fresh.weight, saved.weight)
    with pytest.raises(CheckpointError, match="card says 'other' but the configuration builds 'toy'"):
        ckpt.follow_card(fresh, {"architecture": "other"}, path)


def test_resume_refuses_other_data(tmp_path):
    cfg = toy_config(tmp_path)
    run(cfg, stop_after=6)
    cfg["train_dataloader"]["dataset"] = {"type": "ToyDataset", "size": 12}
    with pytest.raises(CheckpointError, match="trained on 11 samples but the training dataset now has 12"):
        run(cfg, resume=str(tmp_path / "iter_6.pth"))


class Malicious:
    def __reduce__(self):
        return (eval, ("open('PWNED', 'w')",))


def test_no_code_of_a_checkpoint_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": ckpt.FORMAT, "evil": Malicious()}, tmp_path / "evil.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Malicious()))
    (tmp_path / "cut.pth").write_bytes((tmp_path / "evil.pth").read_bytes()[:200])
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    for name in ("evil", "old", "cut", "empty", "page"):
        with pytest.raises(CheckpointError, match=rf"{name}\.pth cannot be opened"):
            ckpt.read_checkpoint(tmp_path / f"{name}.pth")
    assert not (tmp_path / "PWNED").exists()


def test_killed_write_keeps_the_previous_file(tmp_path, monkeypatch):
    path = tmp_path / "iter_1.pth"
    ckpt.write_checkpoint({"format": ckpt.FORMAT, "number": 1}, path)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ckpt.os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        ckpt.write_checkpoint({"format": ckpt.FORMAT, "number": 2}, path)
    assert ckpt.read_checkpoint(path)["number"] == 1
    assert ckpt.latest_checkpoint(tmp_path) == path
    monkeypatch.undo()
    ckpt.write_checkpoint({"format": ckpt.FORMAT, "number": 3}, path)
    assert [p.name for p in tmp_path.iterdir()] == ["iter_1.pth"]


def test_latest_checkpoint_follows_a_moved_folder(tmp_path):
    assert ckpt.latest_checkpoint(tmp_path) is None
    for number in (9, 10):
        (tmp_path / f"iter_{number}.pth").touch()
    assert ckpt.latest_checkpoint(tmp_path).name == "iter_10.pth"
    (tmp_path / ckpt.POINTER).write_text("/elsewhere/run/iter_9.pth")
    assert ckpt.latest_checkpoint(tmp_path).name == "iter_9.pth"
    (tmp_path / ckpt.POINTER).write_text("")
    assert ckpt.latest_checkpoint(tmp_path).name == "iter_10.pth"


def test_to_plain_refuses_objects():
    plain = ckpt.to_plain({"a": np.float32(0.5), "b": (np.arange(2), np.bool_(True))}, "x")
    assert plain == {"a": 0.5, "b": ([0, 1], True)}
    assert type(plain["a"]) is float and type(plain["b"][1]) is bool
    with pytest.raises(CheckpointError, match=r"x\.a\[0\] is a object"):
        ckpt.to_plain({"a": [object()]}, "x")
