"""The tasks of ``ultrasam finetune``, one module each."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Protocol

from ultrasam.errors import ConfigError
from ultrasam.finetune.config_text import Section

# Name on the command line, and the module whose ``TASK`` does it.
MODULES: dict[str, str] = {
    "segment": "ultrasam.finetune.segment",
    "classify": "ultrasam.finetune.classify",
    "prompted-classify": "ultrasam.finetune.prompted_classify",
    "regress": "ultrasam.finetune.regress",
}


class Task(Protocol):
    """What a task does.

    Attributes:
        title: for the help and the first line of the configuration.
    """

    title: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options that this task alone has."""

    def sections(self, options: argparse.Namespace) -> list[Section]:
        """Return the configuration for the command line's options (``data``, ``weights``, ``method``, ...).

        Raises:
            UltraSamError: data, weights and method do not go together.
        """

    def test(self, config: Path, checkpoint: Path, out: Path, options: argparse.Namespace) -> int:
        """Test a checkpoint with the configuration; write below ``out``, print the scores, return an exit status."""


def task_named(name: str) -> Task:
    """Return a task.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in MODULES:
        raise ConfigError(f"there is no task {name!r}; tasks are {', '.join(MODULES)}")
    task: Task = importlib.import_module(MODULES[name]).TASK
    return task
