"""What the commands ``train`` and ``test`` share: arguments, errors as one sentence, the last line."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ultrasam.engine.distributed import LAUNCHERS, close_distributed, process_rank
from ultrasam.errors import ConfigError, UltraSamError

INTERRUPTED = 130


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that every command of the engine takes."""
    parser.add_argument(
        "config", help="configuration file, from the working directory, the project or its configs/ folder"
    )
    parser.add_argument(
        "--seed", type=int, help="seed of every random number (default: that of the configuration)"
    )
    parser.add_argument(
        "--launcher",
        choices=LAUNCHERS,
        default="none",
        help="how the processes were started: torchrun is pytorch, srun is slurm",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="values of the configuration to change; +KEY=VALUE adds a key that it does not have",
    )


def run_command(command: Callable[[], Path]) -> int:
    """Run a command; print its folder as the last line, or its error as one sentence.

    Args:
        command: Does the work and returns the folder that it wrote.

    Returns:
        Exit status: 0, 2 after an error that the user can correct, 130 after an interruption.
    """
    rank = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))
    prefix = "error: " if rank == 0 else f"error of process {rank}: "
    try:
        folder = command()
        if process_rank() == 0:
            print(folder.resolve(), flush=True)
    except UltraSamError as error:
        print(f"{prefix}{sentence_of(error)}", file=sys.stderr, flush=True)
        return 2
    except FileNotFoundError as error:
        what = f"{error.filename} does not exist" if error.filename else sentence_of(error)
        print(f"{prefix}{what}; check the path", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        print(
            f"{prefix}interrupted; --resume continues from the last checkpoint", file=sys.stderr, flush=True
        )
        return INTERRUPTED
    finally:
        close_distributed()
    return 0


def sentence_of(error: Exception) -> str:
    """Return the message of an error, without the traceback that PyTorch adds to one of a loader's worker.

    A worker's error arrives as the same class with the text ``Caught DataError in DataLoader worker process
    0.``, the traceback, and in its last line the class and the message.

    Args:
        error: As it was caught in the main process.
    """
    text, kind = str(error), type(error)
    if not text.startswith(f"Caught {kind.__name__} in "):
        return text
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    # The last such line belongs to the error itself, also where the traceback holds its causes.
    return text.rpartition(f"\n{name}: ")[2].strip() or text


def set_seed(cfg: Config, seed: int | None) -> None:
    """Set the seed of a configuration where one was given on the command line."""
    if seed is None:
        return
    if seed < 0:
        raise ConfigError(f"--seed must not be negative, but is {seed}")
    cfg.randomness = {**cfg.get("randomness", {}), "seed": seed}


def finite(value: Any) -> Any:
    """Replace numbers that JSON does not have (NaN, infinity) by None, at any depth."""
    if isinstance(value, Mapping):
        return {key: finite(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [finite(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_metrics(title: str, metrics: Mapping[str, Any]) -> None:
    """Print metrics as aligned lines, by the first process."""
    if process_rank() != 0 or not metrics:
        return
    width = max(len(name) for name in metrics)
    print(title)
    for name, value in metrics.items():
        shown = f"{value:.4f}" if isinstance(value, float) else value
        print(f"  {name:<{width}}  {shown}")
