"""``--global-batch`` and ``--scale-lr``: the same training on one GPU and on sixty-four.

The recipe is one of optimizer steps on 32 images (configs/ultrasam: 4 GPUs x 8). What the processes do not hold at
once is accumulated; iterations count batches, so everything that the configuration counts in iterations is multiplied.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from ultrasam.errors import ConfigError

# Images of an optimizer step that learning rates of the configurations are for.
RECIPE_BATCH = 32
PROCESSES = {"pytorch": "WORLD_SIZE", "slurm": "SLURM_NTASKS"}
LOOP_KEYS = ("max_iters", "val_interval")
SCHEDULE_KEYS = ("begin", "end", "T_max", "total_iters", "step_size", "total_steps", "milestones", "periods")


def process_number(launcher: str, environ: Mapping[str, str] = os.environ) -> int:
    """Return how many processes the launcher started, before they meet.

    Raises:
        ConfigError: the launcher's environment does not say.
    """
    if launcher == "none":
        return 1
    text = environ.get(PROCESSES[launcher], "")
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(
            f"--launcher {launcher} needs {PROCESSES[launcher]} in the environment, found {text or 'nothing'!r}; start "
            "with tools/dist_train.sh or tools/slurm_train.sh"
        )
    return int(text)


def set_global_batch(cfg: Config, total: int | None, scale_lr: bool, processes: int) -> list[str]:
    """Put the options into a configuration.

    Args:
        cfg: of a training that counts iterations and accumulates nothing yet; changed.
        total: images of an optimizer step over all processes; None leaves it.
        scale_lr: multiply the learning rate by the images of an optimizer step / 32.
        processes: of the run.

    Returns:
        what was chosen, as lines for people.

    Raises:
        ConfigError: processes x batch does not divide ``total``, or the configuration is none of these.
    """
    batch = cfg.train_dataloader.get("batch_size")
    if not isinstance(batch, int):
        raise ConfigError("--global-batch and --scale-lr need train_dataloader.batch_size, the images of a process")
    lines = []
    if total is not None:
        count = _accumulation(total, processes, batch)
        _check(cfg)
        cfg.optim_wrapper.accumulative_counts = count
        if count > 1:
            _multiply_iterations(cfg, count)
        lines.append(
            f"Global batch: {processes} processes x {batch} images x {count} accumulated = {total} an optimizer step"
            + (f"; {cfg.train_cfg.max_iters} iterations are {cfg.train_cfg.max_iters // count} steps" * (count > 1))
        )
    if scale_lr:
        found = processes * batch * int(cfg.optim_wrapper.get("accumulative_counts", 1))
        optimizer = cfg.optim_wrapper.optimizer
        before = optimizer.lr
        optimizer.lr = before * found / RECIPE_BATCH
        lines.append(f"Learning rate: {before:g} x {found} / {RECIPE_BATCH} = {optimizer.lr:g}")
    return lines


def _accumulation(total: int, processes: int, batch: int) -> int:
    """Return how many batches make an optimizer step."""
    count, rest = divmod(total, processes * batch)
    if count and not rest:
        return count
    sizes = [str(size) for size in range(1, total + 1) if total % (processes * size) == 0]
    advice = f"set train_dataloader.batch_size to {' or '.join(sizes)}" if sizes else (
        f"start at most {max(total, 1)} processes, a number that divides it, or choose a larger one with --scale-lr"
    )  # fmt: skip
    raise ConfigError(
        f"--global-batch {total} is no multiple of {processes} processes x {batch} images = {processes * batch}; "
        f"{advice}"
    )


def _check(cfg: Config) -> None:
    """Refuse what could not be multiplied rightly."""
    found = int(cfg.optim_wrapper.get("accumulative_counts", 1))
    if found != 1:
        raise ConfigError(
            f"--global-batch chooses optim_wrapper.accumulative_counts, which is set to {found} already; set it to 1 "
            "and count the schedule in optimizer steps, or leave the option away"
        )
    counters = [cfg.train_cfg, *_schedulers(cfg)]
    if cfg.train_cfg.get("max_iters") is None or any(one.get("by_epoch") for one in counters):
        raise ConfigError("--global-batch needs a training and schedules that count iterations (by_epoch=False)")


def _multiply_iterations(cfg: Config, count: int) -> None:
    """Have the training take as many optimizer steps as it was to take iterations."""
    loop = cfg.train_cfg
    for key in LOOP_KEYS:
        if loop.get(key) is not None:
            loop[key] = loop[key] * count
    if loop.get("val_begin", 1) > 1:
        loop["val_begin"] = loop["val_begin"] * count
    if loop.get("dynamic_intervals"):
        loop["dynamic_intervals"] = [(begin * count, interval * count) for begin, interval in loop["dynamic_intervals"]]
    for schedule in _schedulers(cfg):
        for key in SCHEDULE_KEYS:
            value = schedule.get(key)
            if isinstance(value, list | tuple):
                schedule[key] = [number * count for number in value]
            elif isinstance(value, int):
                schedule[key] = value * count
    checkpoint = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
    if checkpoint.get("interval", -1) > 0:
        checkpoint["interval"] = checkpoint["interval"] * count


def _schedulers(cfg: Config) -> list[Any]:
    found = cfg.get("param_scheduler") or []
    return list(found) if isinstance(found, list | tuple) else [found]
