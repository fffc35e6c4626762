"""Two gloo processes do what one process with the same global batch does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from test_resume import run
from toys import toy_config

from ultrasam.engine import checkpointing as ckpt
from ultrasam.engine import distributed
from ultrasam.engine.build import build_runner
from ultrasam.errors import ConfigError

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Folder written by two processes, and what each of them saw."""
    folder = tmp_path_factory.mktemp("pair")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, str(HERE / "two_processes.py"), str(folder)],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder, [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def alone(folder):
    cfg = toy_config(folder)
    cfg["model"] = {"type": "ToyModel", "dropout": 0.0}
    cfg["train_dataloader"]["batch_size"] = 4
    return cfg


def test_losses_equal_those_of_one_process(pair, tmp_path):
    folder, seen = pair
    _, record = run(alone(tmp_path))
    assert seen[0]["losses"] == seen[1]["losses"]
    np.testing.assert_allclose(seen[0]["losses"], record.losses, rtol=0, atol=1e-6)
    two = ckpt.read_checkpoint(folder / "whole" / "iter_12.pth")
    one = ckpt.read_checkpoint(tmp_path / "iter_12.pth")
    assert two["data"] == one["data"] == {"position": 48, "seed": 3, "size": 11}
    assert two["state_dict"].keys() == one["state_dict"].keys()
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], value, rtol=0, atol=1e-5)
    assert len(two["random_states"]) == 2 and len(one["random_states"]) == 1


def test_resume_is_exact_on_every_process(pair):
    _, seen = pair
    for rank in range(2):
        assert seen[rank]["resumed"] == seen[rank]["uninterrupted"]
        assert seen[rank]["resumed_sharded"] == seen[rank]["uninterrupted_sharded"]


def test_sharded_training_equals_copied(pair):
    """Losses, weights and the optimizer's state of FSDP are those of DDP; validation ran on the way."""
    folder, seen = pair
    assert seen[0]["losses_sharded"] == seen[1]["losses_sharded"]
    np.testing.assert_allclose(seen[0]["losses_sharded"], seen[0]["losses"], rtol=0, atol=1e-6)
    copied, sharded = (ckpt.read_checkpoint(folder / name / "iter_12.pth") for name in ("whole", "whole_sharded"))
    for key in ("state_dict", "optimizer"):
        torch.testing.assert_close(sharded[key], copied[key], rtol=0, atol=1e-6)
    for name in ("train/grad_norm", "val/mae"):
        pairs = [saved["message_hub"]["log_scalars"][name]["log"] for saved in (copied, sharded)]
        np.testing.assert_allclose(pairs[1], pairs[0], rtol=0, atol=1e-6)


def test_one_process_continues_a_sharded_run(pair, tmp_path):
    folder, _ = pair
    cfg = {**alone(tmp_path), "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 13, "val_interval": 100}}
    losses = [run(cfg, resume=str(folder / name / "iter_12.pth"))[1].losses for name in ("whole", "whole_sharded")]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0, atol=1e-6)


def test_sharded_model_is_tested_whole_after_training(pair):
    """5 samples on 2 processes, with a model whose weights are distributed."""
    _, seen = pair
    assert [seen[rank]["metrics_sharded"]["count"] for rank in range(2)] == [5, 5]
    assert seen[0]["metrics_sharded"] == seen[1]["metrics_sharded"]


def test_metrics_count_every_sample_once(pair, tmp_path):
    """5 samples on 2 processes: the sampler repeats one, which must not be counted."""
    _, seen = pair
    expected = build_runner(Config(alone(tmp_path))).test()
    for rank in range(2):
        assert seen[rank]["metrics"]["count"] == 5
        assert seen[rank]["metrics"]["mae"] == pytest.approx(expected["mae"], rel=1e-6)


def test_one_process_continues_the_data_of_two(pair, tmp_path, caplog):
    folder, _ = pair
    cfg = alone(tmp_path)
    cfg["train_cfg"] = {"type": "IterBasedTrainLoop", "max_iters": 13, "val_interval": 100}
    runner, record = run(cfg, resume=str(folder / "whole" / "iter_12.pth"))
    assert len(record.losses) == 1 and runner.train_loop.sampler.position == 52


def test_mean_over_processes_is_the_identity_for_one():
    assert distributed.mean_over_processes({"loss": 1.5, "name": "x"}) == {"loss": 1.5, "name": "x"}


@pytest.mark.parametrize(
    ("launcher", "environment", "message"),
    [
        ("mpi", {}, "must be one of none, pytorch, slurm"),
        ("pytorch", {}, "RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT is not set"),
        ("none", {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2"}, "add --launcher pytorch"),
    ],
)
def test_contradicting_launchers_are_refused(launcher, environment, message):
    with pytest.raises(ConfigError, match=message):
        distributed._check_environment(launcher, environment)


def test_slurm_environment(monkeypatch):
    environ = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_NODELIST": "node7"}
    assert distributed._slurm_environment(environ, None) == {
        "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "MASTER_ADDR": "node7", "MASTER_PORT": "29500",
    }  # fmt: skip
    environ |= {"MASTER_ADDR": "host", "MASTER_PORT": "7"}
    translated = distributed._slurm_environment(environ, 9)
    assert (translated["MASTER_ADDR"], translated["MASTER_PORT"]) == ("host", "9")
    with pytest.raises(ConfigError, match="SLURM_PROCID, SLURM_NTASKS is not set"):
        distributed._slurm_environment({}, None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="set MASTER_ADDR"):
        distributed._first_host("gpu[03-06]")
