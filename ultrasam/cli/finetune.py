"""``ultrasam finetune``: writes a configuration for your data and weights, trains it, and tests the result."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ultrasam.cli.errors import guarded
from ultrasam.errors import ConfigError
from ultrasam.finetune.config_text import config_text
from ultrasam.finetune.sections import RATES, add_shared_arguments
from ultrasam.finetune.tasks import MODULES, Task, task_named
from ultrasam.io.files import write_atomic

CONFIG = "config.py"


def build_parser(task: Task) -> argparse.ArgumentParser:
    """Return the command line of a task."""
    parser = argparse.ArgumentParser(
        prog="ultrasam finetune",
        description="Write a configuration for your data and weights, train it, and test the result.",
    )
    parser.add_argument("--data", required=True, metavar="ROOT", help="folder with train.json, val.json, test.json")
    parser.add_argument("--weights", required=True, help="weights to start from: a file, or a name")
    parser.add_argument(
        "--method", choices=list(RATES), default="lora", help="what trains (default: lora); decoder needs least memory"
    )
    parser.add_argument("--task", choices=list(MODULES), default="segment", help="what to learn (default: segment)")
    add_shared_arguments(parser)
    task.add_arguments(parser)
    parser.add_argument("--dry-config", action="store_true", help="write the configuration and stop")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 2 after an error that the user can correct, or the status of what failed."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--task", choices=list(MODULES), default="segment")
    task = task_named(first.parse_known_args(arguments)[0].task)
    options = build_parser(task).parse_args(arguments)
    return guarded(lambda: finetune(task, options, arguments))


def finetune(task: Task, options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Write, train and test; the last line printed is the folder, or the configuration with ``--dry-config``.

    Args:
        task: what to learn.
        options: the command line, parsed.
        arguments: as it was given, for the configuration's first line.
    """
    for name in ("iterations", "batch_size"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(options, name)}, expected at least 1")
    out = Path(options.out or Path("work_dirs") / f"finetune_{options.task}_{options.method}").resolve()
    config = out / CONFIG
    sections = task.sections(options)
    title = (
        f"Fine-tuning by {options.method}: {task.title}.\n\n"
        "Stand-alone; change it and train or test it with the tools:\n\n"
        f"    python tools/train.py {CONFIG} --work-dir FOLDER\n\n"
        f"Written by: ultrasam finetune {shlex.join(arguments)}"
    ).replace("\\", "/")
    text = config_text(title, sections)
    if options.resume and config.is_file():
        # A resumed run continues with the configuration that it started with, as it is now.
        print(f"continuing with {config}", flush=True)
    else:
        write_atomic(config, text.encode())
    if options.dry_config:
        print(config, flush=True)
        return 0
    from ultrasam.engine.train import main as train

    status = train([str(config), "--work-dir", str(out), *(["--resume"] if options.resume else [])])
    if status:
        return status
    if any(section.name == "test_dataloader" for section in sections):
        checkpoint = Path((out / "last_checkpoint").read_text(encoding="utf-8").strip())
        status = task.test(config, checkpoint, out, options)
        if status:
            return status
    for path in sorted(out.glob("*.safetensors")):
        print(f"weights {path}")
    print(out, flush=True)
    return 0
