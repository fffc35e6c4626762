"""Running the tests behind a table, each once: results are kept by what they depend on."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ultrasam
from ultrasam.errors import ConfigError
from ultrasam.io.files import write_atomic
from ultrasam.reproduce.layout import Source
from ultrasam.reproduce.weights import checkpoint_hash

DATA_VARIABLE = "ULTRASAM_DATA"
RUN = "run.json"
# No part of a test's result: training, logging, places and the number of worker processes.
_NO_RESULT = {
    "train_dataloader", "train_cfg", "train_pipeline", "val_dataloader", "val_cfg", "val_evaluator", "optim_wrapper",
    "param_scheduler", "default_hooks", "visualizer", "log_processor", "log_level", "work_dir", "load_from", "resume",
    "launcher", "allow_test_selection", "find_unused_parameters", "recompute_modules", "data_root", "num_workers",
    "persistent_workers", "pin_memory", "prefetch_factor", "cache_dir", "cache_bytes",
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """What all tests of a call share.

    Attributes:
        data: root of the prepared data.
        out: folder of everything that is written.
        weights: name to file.
        options: ``KEY=VALUE`` for every configuration.
        counted: tests that were run (not found).
    """

    data: Path
    out: Path
    weights: Mapping[str, Path] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    counted: list[Path] = field(default_factory=list)

    def annotations(self, source: Source) -> Path:
        """Return the annotation file of a test."""
        return self.data / source.annotations


@contextmanager
def data_root(folder: Path) -> Iterator[None]:
    """Let configurations find the data root, as the environment variable does for the commands."""
    before = os.environ.get(DATA_VARIABLE)
    os.environ[DATA_VARIABLE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[DATA_VARIABLE]
        else:
            os.environ[DATA_VARIABLE] = before


def result_folder(source: Source, setting: Setting) -> Path:
    """Return the result folder of a test; it is run where it is not there yet.

    Args:
        source: the test; its weights and data must be given.
        setting: weights, data and the folder to write.

    Raises:
        UltraSamError: the test cannot be run; nothing of it is kept as a result.
    """
    from ultrasam.engine.setup import register_all
    from ultrasam.engine.test import prepare_config, test

    register_all()
    with data_root(setting.data):
        arguments = _arguments(source, setting)
        cfg = prepare_config(arguments)
        parts = _parts(cfg, source, setting)
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        words = (source.dataset, source.prompt, source.weights, key[:12])
        folder = setting.out / "runs" / ".".join(word for word in words if word)
        if (folder / RUN).is_file():
            return folder
        arguments.out = folder
        test(arguments)
    # Written last: a folder without it is of an interrupted test, which is run again.
    write_atomic(folder / RUN, (json.dumps(parts, indent=2) + "\n").encode())
    setting.counted.append(folder)
    return folder


def _arguments(source: Source, setting: Setting) -> argparse.Namespace:
    """Return the arguments of tools/test.py."""
    from ultrasam.engine.test import parse_arguments

    options = [*source.options, *setting.options]
    command = [source.config, str(setting.weights[source.weights])]
    command += ["--datasets", source.dataset, *(["--prompt", source.prompt] if source.prompt else [])]
    return parse_arguments([*command, *(["--cfg-options", *options] if options else [])])


def _parts(cfg: Any, source: Source, setting: Setting) -> dict[str, Any]:
    """Return everything that the numbers of a test depend on.

    Raises:
        ConfigError: the configuration reads other data than those of the setting.
    """
    from ultrasam.engine.checks import annotation_files

    wanted = setting.annotations(source)
    files = annotation_files(cfg.test_dataloader)
    if files != {wanted.expanduser().resolve()}:
        raise ConfigError(
            f"{source.config} tests on {', '.join(str(path) for path in sorted(files))}, but {wanted} was expected; "
            f"let its data_root be {{{{${DATA_VARIABLE}:...}}}}"
        )
    text = json.dumps(_kept(cfg.to_dict()), sort_keys=True, default=str)
    return {
        "checkpoint_sha256": checkpoint_hash(setting.weights[source.weights]),
        "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "annotations_sha256": hashlib.sha256(wanted.read_bytes()).hexdigest(),
        "prompt": source.prompt,
        "ultrasam": ultrasam.__version__,
    }


def _kept(value: Any) -> Any:
    """Return a configuration without what no result depends on."""
    if isinstance(value, Mapping):
        return {str(key): _kept(child) for key, child in value.items() if key not in _NO_RESULT}
    if isinstance(value, list | tuple):
        return [_kept(child) for child in value]
    return value
