"""Building the objects of a configuration, for running it and for testing it without data."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS, DefaultScope
from torch import nn

from ultrasam.engine.allocator import keep_freed_memory
from ultrasam.engine.checks import LOADERS, annotation_files, check_config
from ultrasam.engine.names import accepted_arguments, all_registries, find_anywhere, nearest, registered_names
from ultrasam.engine.precision import resolve_optim_wrapper
from ultrasam.engine.runner import UltraSamRunner
from ultrasam.errors import ConfigError


@dataclass
class Built:
    """What :func:`build_everything` built.

    Attributes:
        model: The model, on the CPU.
        datasets: Loader name to its dataset; None where its annotation files are absent and it cannot wait
            for them.
        hooks: Default and custom hooks.
        evaluators: ``val_evaluator`` and ``test_evaluator``.
        optim_wrapper: The optimizer over the model, None for a configuration that only tests.
        missing_files: Annotation files that do not exist on this machine.
    """

    model: nn.Module
    datasets: dict[str, Any] = field(default_factory=dict)
    hooks: list[Any] = field(default_factory=list)
    evaluators: dict[str, Evaluator] = field(default_factory=dict)
    optim_wrapper: Any = None
    missing_files: list[Path] = field(default_factory=list)


@contextmanager
def explained_errors(place: str) -> Iterator[None]:
    """Turn the registry's KeyError and a constructor's TypeError into one sentence.

    Args:
        place: What was being built, such as ``model``.

    Raises:
        ConfigError: Instead of these errors.
    """
    try:
        yield
    except KeyError as error:
        match = re.search(
            r"(\S+) is not in the (\S+?)::(.+?) registry", str(error.args[0] if error.args else "")
        )
        if match is None:
            raise
        name, kind = match.group(1).strip("'\""), match.group(3)
        registry = next((r for r in all_registries().values() if r.name == kind), None)
        similar = nearest(name, registered_names(registry)) if registry is not None else "unknown"
        raise ConfigError(
            f"{place} names {name!r}, which is not registered as a {kind}; nearest: {similar}"
        ) from error
    except TypeError as error:
        if re.search(r"unexpected keyword argument|missing \d+ required", str(error)) is None:
            raise
        text = str(error).replace(".__init__()", "")
        raise ConfigError(f"{place} does not fit its class: {text}; correct its arguments") from error


def build_runner(cfg: Config) -> UltraSamRunner:
    """Check a configuration and build its runner.

    Args:
        cfg: A configuration with ``work_dir``.

    Raises:
        ConfigError: If it is wrong in any way that can be seen before data are read.
    """
    check_config(cfg)
    keep_freed_memory()
    with explained_errors(str(cfg.filename)):
        return UltraSamRunner.from_cfg(cfg)


def build_everything(cfg: Config) -> Built:
    """Build the model, datasets, evaluators, hooks and optimizer of a configuration on the CPU.

    Datasets whose annotation files are absent are built with ``lazy_init=True`` where their class has that
    argument; otherwise their arguments are checked and the transforms of their pipelines are built.

    Args:
        cfg: The configuration; :func:`ultrasam.engine.setup.register_all` must have run. It is not modified.

    Raises:
        ConfigError: If anything cannot be built.
    """
    check_config(cfg)
    cfg = copy.deepcopy(cfg)
    scope = cfg.get("default_scope", "mmengine")
    with DefaultScope.overwrite_default_scope(scope):
        with explained_errors("model"):
            built = Built(MODELS.build(cfg.model))
        for name in LOADERS:
            if cfg.get(name):
                with explained_errors(f"{name}.dataset"):
                    built.datasets[name] = _build_dataset(cfg[name], built.missing_files)
        for name in ("val_evaluator", "test_evaluator"):
            if cfg.get(name):
                with explained_errors(name):
                    built.evaluators[name] = _build_evaluator(cfg[name])
        for place, hook in _hook_configs(cfg):
            with explained_errors(place):
                built.hooks.append(HOOKS.build({k: v for k, v in hook.items() if k != "priority"}))
        if cfg.get("optim_wrapper"):
            with explained_errors("optim_wrapper"):
                wrapper = resolve_optim_wrapper(cfg.optim_wrapper)
                built.optim_wrapper = build_optim_wrapper(built.model, wrapper)
    return built


def _hook_configs(cfg: Config) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, hook in (cfg.get("default_hooks") or {}).items():
        if hook is not None:
            yield f"default_hooks.{name}", hook
    for number, hook in enumerate(cfg.get("custom_hooks") or []):
        yield f"custom_hooks.{number}", hook


def _build_evaluator(cfg: Any) -> Evaluator:
    if isinstance(cfg, Mapping) and "metrics" in cfg:
        cfg = cfg["metrics"]
    metrics = cfg if isinstance(cfg, list) else [cfg]
    return Evaluator([METRICS.build(metric) for metric in metrics])


def _build_dataset(loader: Mapping[str, Any], missing: list[Path]) -> Any:
    """Build the dataset of a loader, or check it where its files are absent."""
    absent = sorted(path for path in annotation_files(loader) if not path.exists())
    missing.extend(absent)
    dataset = loader["dataset"]
    if not absent:
        return DATASETS.build(dataset)
    if _make_lazy(dataset):
        return DATASETS.build(dataset)
    for pipeline in _pipelines(dataset):
        for transform in pipeline:
            TRANSFORMS.build(transform)
    return None


def _make_lazy(dataset: Any) -> bool:
    """Set ``lazy_init`` in every dataset below; False where one of the classes lacks it."""
    children = [dataset.get(key) for key in ("datasets", "dataset") if _is_nested(dataset.get(key))]
    nested = [child for value in children for child in (value if isinstance(value, list) else [value])]
    accepted = accepted_arguments(find_anywhere(dataset["type"]))
    if accepted is not None and "lazy_init" not in accepted:
        return False
    dataset["lazy_init"] = True
    return all([_make_lazy(child) for child in nested])


def _is_nested(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)
    )


def _pipelines(value: Any) -> Iterator[list[Any]]:
    if isinstance(value, Mapping):
        for key, child in value.items():
            if key == "pipeline" and isinstance(child, list):
                yield child
            else:
                yield from _pipelines(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _pipelines(child)
