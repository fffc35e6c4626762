"""The same training with any number of processes: accumulation, schedule, learning rate, refusals."""

import copy

import numpy as np
import pytest
from mmengine.config import Config
from test_resume import run
from toys import toy_config

from ultrasam.engine import checkpointing as ckpt
from ultrasam.engine import train as train_command
from ultrasam.engine.checks import check_accumulation
from ultrasam.engine.global_batch import process_number, set_global_batch
from ultrasam.errors import CheckpointError, ConfigError


def config(folder, batch, **changes):
    cfg = Config(toy_config(folder, **changes))
    cfg.train_dataloader.batch_size = batch
    return cfg


@pytest.mark.parametrize(("processes", "batch"), [(1, 8), (1, 32), (4, 8), (8, 2), (8, 4), (32, 1)])
def test_every_step_is_of_32_images_and_the_rate_stays(tmp_path, processes, batch):
    cfg = config(tmp_path, batch)
    (said,) = set_global_batch(cfg, 32, False, processes)
    count = cfg.optim_wrapper.accumulative_counts
    assert processes * batch * count == 32
    assert f"{processes} processes x {batch} images x {count} accumulated = 32" in said
    assert cfg.train_cfg.max_iters == 12 * count and cfg.train_cfg.val_interval == 4 * count
    assert cfg.default_hooks.checkpoint.interval == 6 * count
    assert cfg.param_scheduler[0].end == 5 * count and list(cfg.param_scheduler[1].milestones) == [8 * count]
    assert cfg.optim_wrapper.optimizer.lr == 0.01 and cfg.param_scheduler[0].start_factor == 0.1
    check_accumulation(cfg)


@pytest.mark.parametrize(("processes", "total", "rate"), [(64, 128, 0.04), (4, None, 0.0025), (8, 16, 0.005)])
def test_the_rate_is_proportional_when_asked(tmp_path, processes, total, rate):
    cfg = config(tmp_path, 2)
    said = set_global_batch(cfg, total, True, processes)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(rate)
    assert f"/ 32 = {rate:g}" in said[-1]


@pytest.mark.parametrize(("processes", "batch", "message"), [
    (8, 8, "8 processes x 8 images = 64; set train_dataloader.batch_size to 1 or 2 or 4"),
    (3, 1, "start at most 32 processes, a number that divides it"),
    (64, 1, "larger one with --scale-lr"),
])  # fmt: skip
def test_what_does_not_divide_is_refused(tmp_path, processes, batch, message):
    cfg = config(tmp_path, batch)
    before = copy.deepcopy(cfg)
    with pytest.raises(ConfigError, match=message):
        set_global_batch(cfg, 32, True, processes)
    assert cfg.to_dict() == before.to_dict()


def test_other_configurations_are_refused(tmp_path):
    cfg = config(tmp_path, 2)
    cfg.optim_wrapper.accumulative_counts = 2
    with pytest.raises(ConfigError, match="set to 2 already"):
        set_global_batch(cfg, 32, False, 1)
    cfg = config(tmp_path, 2)
    cfg.param_scheduler[0].by_epoch = True
    with pytest.raises(ConfigError, match="count iterations"):
        set_global_batch(cfg, 32, False, 1)
    with pytest.raises(ConfigError, match="--global-batch 0 is no multiple"):
        set_global_batch(config(tmp_path, 2), 0, False, 1)


def test_the_launcher_says_how_many_processes_there_are():
    assert process_number("none", {}) == 1
    assert process_number("pytorch", {"WORLD_SIZE": "16"}) == 16
    assert process_number("slurm", {"SLURM_NTASKS": "64", "WORLD_SIZE": "1"}) == 64
    with pytest.raises(ConfigError, match="needs WORLD_SIZE in the environment"):
        process_number("pytorch", {})


def test_small_batches_train_as_the_large_one(tmp_path):
    """The same images in the same steps: weights after 12 steps of 4 images and of 2 x 2 accumulated agree.

    The warm-up's rates differ by less than one step of the schedule, which is left out here.
    """
    weights = []
    for name, batch in (("large", 4), ("small", 2)):
        cfg = config(tmp_path / name, batch, model={"type": "ToyModel", "dropout": 0.0}, param_scheduler=[])
        set_global_batch(cfg, 4, False, 1)
        runner, record = run(cfg.to_dict())
        assert len(record.losses) == 12 * 4 // batch and runner.train_loop.sampler.position == 48
        weights.append(ckpt.read_checkpoint(ckpt.latest_checkpoint(tmp_path / name))["state_dict"])
    for key, value in weights[0].items():
        np.testing.assert_allclose(weights[1][key], value, rtol=0, atol=1e-5)


def test_resuming_with_other_parts_of_a_step_is_refused(tmp_path):
    cfg = toy_config(tmp_path)
    run(cfg, stop_after=6)
    assert ckpt.read_checkpoint(tmp_path / "iter_6.pth")["meta"]["accumulation"] == 1
    other = Config(copy.deepcopy(cfg))
    set_global_batch(other, 4, False, 1)
    with pytest.raises(CheckpointError, match="1 batches an optimizer step and this run has 2"):
        run(other.to_dict(), resume=str(tmp_path / "iter_6.pth"))


def test_the_command_takes_the_options(tmp_path, capsys):
    Config(toy_config(tmp_path / "work")).dump(tmp_path / "toy.py")
    arguments = [str(tmp_path / "toy.py"), "--global-batch", "6", "--scale-lr"]
    cfg = train_command.prepare_config(train_command.parse_arguments(arguments))
    said = capsys.readouterr().out
    assert "1 processes x 2 images x 3 accumulated = 6" in said and "36 iterations are 12 steps" in said
    assert "Learning rate: 0.01 x 6 / 32 = 0.001875" in said
    assert cfg.optim_wrapper.accumulative_counts == 3 and cfg.optim_wrapper.optimizer.lr == 0.01 * 6 / 32
