"""The command ``train``: a configuration in, a folder with checkpoints and logs out."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ultrasam.engine.build import build_runner
from ultrasam.engine.checkpointing import latest_checkpoint, weight_file
from ultrasam.engine.checks import leaf_datasets
from ultrasam.engine.commands import add_shared_arguments, print_metrics, run_command, set_seed
from ultrasam.engine.config import load_config
from ultrasam.engine.dry_run import dry_run
from ultrasam.engine.global_batch import process_number, set_global_batch
from ultrasam.engine.precision import resolve_optim_wrapper
from ultrasam.engine.runner import UltraSamRunner
from ultrasam.engine.setup import register_all
from ultrasam.errors import CheckpointError, ConfigError

NEWEST = "newest of the work folder"


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="train.py", description="Train a model of UltraSam.")
    add_shared_arguments(parser)
    parser.add_argument("--work-dir", type=Path, help="folder to write (default: work_dirs/<configuration>)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=NEWEST,
        metavar="PATH",
        help="continue exactly from a checkpoint, by default the newest of the work folder",
    )
    parser.add_argument("--amp", action="store_true", help="bfloat16 autocast, on GPU or CPU")
    parser.add_argument(
        "--weights", help="start from these weights: a file of any format that UltraSam reads, or a name"
    )
    parser.add_argument(
        "--exclude", nargs="+", default=[], metavar="WORD",
        help="data sets or applications to leave out of training and validation, such as bus_bra, breast, ovarian or "
        "gastrointestinal (zero-shot tests); says what is left out, and the checkpoints do",
    )  # fmt: skip
    parser.add_argument(
        "--global-batch", type=int, metavar="N",
        help="images of an optimizer step over all processes; accumulates batches and lengthens the schedule to get it",
    )  # fmt: skip
    parser.add_argument(
        "--scale-lr", action="store_true", help="learning rate times the images of an optimizer step / 32"
    )
    parser.add_argument(
        "--dry-run", action="store_true",
        help="open every image, take ten steps, print what the training would cost, and write nothing",
    )  # fmt: skip
    return parser.parse_args(argv)


def prepare_config(arguments: argparse.Namespace) -> Config:
    """Load the configuration and put the command line into it.

    Raises:
        ConfigError: If arguments contradict each other or the configuration cannot train.
        CheckpointError: If a named checkpoint does not exist.
    """
    cfg = load_config(arguments.config, arguments.cfg_options)
    if (
        cfg.get("train_dataloader") is None
        or cfg.get("train_cfg") is None
        or cfg.get("optim_wrapper") is None
    ):
        raise ConfigError(
            f"the configuration {cfg.filename} does not train: it lacks train_dataloader, train_cfg or "
            f"optim_wrapper; "
            "use tools/test.py with it"
        )
    default = Path("work_dirs") / Path(str(cfg.filename)).stem
    cfg.work_dir = str(arguments.work_dir or cfg.get("work_dir") or default)
    cfg.launcher = arguments.launcher
    set_seed(cfg, arguments.seed)
    if arguments.amp:
        cfg.optim_wrapper = resolve_optim_wrapper(cfg.optim_wrapper, amp=True)
    _set_batch(cfg, arguments)
    _set_exclusion(cfg, arguments.exclude)
    _set_start(cfg, arguments.resume, arguments.weights)
    return cfg


def _set_batch(cfg: Config, arguments: argparse.Namespace) -> None:
    """Put ``--global-batch`` and ``--scale-lr`` into the configuration; the first process says what was chosen."""
    if arguments.global_batch is None and not arguments.scale_lr:
        return
    processes = process_number(arguments.launcher)
    lines = set_global_batch(cfg, arguments.global_batch, arguments.scale_lr, processes)
    if int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) == 0:
        print("\n".join(lines), flush=True)


def _set_exclusion(cfg: Config, words: Sequence[str]) -> None:
    """Put ``--exclude`` into the datasets of training and validation.

    Raises:
        ConfigError: no dataset can leave anything out.
    """
    if not words:
        return
    leaves = [
        leaf
        for loader in ("train_dataloader", "val_dataloader")
        for leaf in leaf_datasets((cfg.get(loader) or {}).get("dataset"))
        if leaf["type"].rpartition(".")[2] == "PromptedCocoDataset"
    ]
    if not leaves:
        raise ConfigError(f"--exclude {' '.join(words)} needs PromptedCocoDataset, which {cfg.filename} does not use")
    for leaf in leaves:
        leaf["exclude"] = list(words)


def _set_start(cfg: Config, resume: str | None, weights: str | None) -> None:
    """Decide between starting from weights, resuming, and both (resume once there is a checkpoint)."""
    if resume not in (None, NEWEST):
        if weights is not None:
            raise ConfigError(
                f"--resume {resume} and --weights {weights} exclude each other; resume a run, or start one "
                f"from weights"
            )
        if not Path(resume).is_file():
            raise CheckpointError(f"the checkpoint {resume} of --resume does not exist; check the path")
        cfg.load_from, cfg.resume = resume, True
        return
    if weights is not None:
        cfg.load_from = str(weight_file(weights).resolve())
    if resume == NEWEST:
        newest = latest_checkpoint(cfg.work_dir)
        if newest is not None:
            cfg.load_from, cfg.resume = str(newest), True
        else:
            print(
                f"{cfg.work_dir} holds no checkpoint to resume; training starts at the beginning", flush=True
            )


def _last_metrics(runner: UltraSamRunner) -> dict[str, Any]:
    """Return the newest value of every validation metric."""
    return {
        name.removeprefix("val/"): float(history.current())
        for name, history in runner.message_hub.log_scalars.items()
        if name.startswith("val/") and name not in ("val/time", "val/data_time")
    }


def train(arguments: argparse.Namespace) -> Path:
    """Train as the command line says.

    Returns:
        The folder that holds the checkpoints and logs, or would.
    """
    register_all()
    cfg = prepare_config(arguments)
    if arguments.dry_run:
        dry_run(cfg)
        return Path(cfg.work_dir)
    runner = build_runner(cfg)
    runner.train()
    print_metrics("Last validation:", _last_metrics(runner))
    return Path(runner.work_dir)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the program's name; those of the process where None.

    Returns:
        Exit status.
    """
    arguments = parse_arguments(argv)
    return run_command(lambda: train(arguments))
