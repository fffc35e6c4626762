"""Checks of a whole configuration before anything is built: names, arguments, and honest model selection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine import registry as mm
from mmengine.config import Config
from mmengine.registry import Registry

from ultrasam.engine.names import (
    accepted_arguments,
    find_anywhere,
    find_registered,
    nearest,
    registered_names,
)
from ultrasam.errors import ConfigError

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
# Consumed by the builders and not by the constructors.
_BUILDER_KEYS = {
    "type", "_scope_", "_delete_", "priority", "constructor", "paramwise_cfg", "convert_to_iter_based",
    "init_cfg", "by_epoch",
}  # fmt: skip


def typed_nodes(value: Any, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every dictionary with a ``type`` below a value, with its dotted place."""
    if isinstance(value, Mapping):
        if "type" in value:
            yield where, value
        for key, child in value.items():
            yield from typed_nodes(child, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for number, child in enumerate(value):
            yield from typed_nodes(child, f"{where}.{number}")


def _sections(cfg: Config) -> Iterator[tuple[str, Any, Registry]]:
    """Yield (place, value, registry) of everything that MMEngine builds from a configuration."""
    yield "model", cfg.get("model"), mm.MODELS
    for name in LOADERS:
        loader = cfg.get(name) or {}
        for key, registry in (
            ("dataset", mm.DATASETS),
            ("sampler", mm.DATA_SAMPLERS),
            ("collate_fn", mm.FUNCTIONS),
        ):
            yield f"{name}.{key}", loader.get(key), registry
    wrapper = cfg.get("optim_wrapper") or {}
    yield "optim_wrapper", wrapper, mm.OPTIM_WRAPPERS
    yield "optim_wrapper.optimizer", wrapper.get("optimizer"), mm.OPTIMIZERS
    yield "param_scheduler", cfg.get("param_scheduler"), mm.PARAM_SCHEDULERS
    for name in ("val_evaluator", "test_evaluator"):
        yield name, cfg.get(name), mm.METRICS
    for name in ("train_cfg", "val_cfg", "test_cfg"):
        yield name, cfg.get(name), mm.LOOPS
    yield "default_hooks", cfg.get("default_hooks"), mm.HOOKS
    yield "custom_hooks", cfg.get("custom_hooks"), mm.HOOKS
    yield "visualizer", cfg.get("visualizer"), mm.VISUALIZERS


def _expected_registry(where: str, section: Registry) -> Registry:
    """Return the registry of a nested place: transforms of a pipeline, back ends of a visualizer."""
    parts = where.split(".")
    if "pipeline" in parts or "transforms" in parts:
        return mm.TRANSFORMS
    if "vis_backends" in parts:
        return mm.VISBACKENDS
    return mm.OPTIMIZERS if where == "optim_wrapper.optimizer" else section


def check_names(cfg: Config) -> None:
    """Check that every ``type`` is registered and every argument of our own classes exists.

    Arguments are checked for the objects that MMEngine builds directly and for classes of UltraSam; nested
    entries of MMCV and MMDetection, whose helpers take further keys, are left to their constructors.

    Args:
        cfg: The configuration; :func:`ultrasam.engine.setup.register_all` must have run.

    Raises:
        ConfigError: Names the place, the wrong name and the nearest valid ones.
    """
    for section, value, registry in _sections(cfg):
        if value is None:
            continue
        for where, node in typed_nodes(value, section):
            if section == "model" and {"train_cfg", "test_cfg"} & set(where.split(".")):
                continue
            direct = where in (section, f"{section}.{where.rpartition('.')[2]}")
            _check_node(where, node, _expected_registry(where, registry), direct)


def _check_node(where: str, node: Mapping[str, Any], registry: Registry, direct: bool) -> None:
    kind = node["type"]
    if isinstance(kind, str):
        found = find_registered(kind, registry) or find_anywhere(kind)
        if found is None:
            raise ConfigError(
                f"{where}.type is {kind!r}, which is not registered as a {registry.name}; "
                f"nearest: {nearest(kind, registered_names(registry))}"
            )
    else:
        found = kind
    ours = getattr(found, "__module__", "").startswith("ultrasam")
    if not (direct or ours) or where.endswith("optimizer"):
        return
    accepted = accepted_arguments(found)
    unknown = sorted(set(node) - _BUILDER_KEYS - accepted) if accepted is not None else []
    if unknown:
        raise ConfigError(
            f"{where} sets {unknown[0]!r}, but {getattr(found, '__name__', kind)} has no such argument; "
            f"nearest: {nearest(unknown[0], accepted or ())}"
        )


def leaf_datasets(dataset: Any) -> Iterator[dict[str, Any]]:
    """Yield the dataset configurations with an annotation file below wrappers, concatenations and lists."""
    if isinstance(dataset, list | tuple):
        for child in dataset:
            yield from leaf_datasets(child)
    elif isinstance(dataset, Mapping):
        inner = [dataset[key] for key in ("datasets", "dataset") if key in dataset]
        inner = [child for child in inner if not isinstance(child, str) and _holds_datasets(child)]
        if inner:
            for child in inner:
                yield from leaf_datasets(child)
        else:
            yield dataset  # type: ignore[misc]


def _holds_datasets(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list | tuple) and all(isinstance(child, Mapping) for child in value)
    )


def annotation_files(loader: Mapping[str, Any] | None) -> set[Path]:
    """Return the resolved annotation files of a loader's datasets."""
    files = set()
    for leaf in leaf_datasets((loader or {}).get("dataset")):
        named = leaf.get("ann_file") or ()
        for name in [named] if isinstance(named, str | Path) else named:
            files.add((Path(leaf.get("data_root") or "") / name).expanduser().resolve())
    return files


def _selectors(cfg: Config) -> list[str]:
    """Return what in a configuration makes choices by the validation score."""
    hooks = [*(cfg.get("default_hooks") or {}).items(), *enumerate(cfg.get("custom_hooks") or [])]
    found = []
    for name, hook in hooks:
        if isinstance(hook, Mapping) and hook.get("save_best") is not None:
            found.append(f"default_hooks.{name}.save_best={hook['save_best']!r}")
        if isinstance(hook, Mapping) and hook.get("type") == "EarlyStoppingHook":
            found.append("EarlyStoppingHook")
    return found


def check_selection(cfg: Config) -> None:
    """Refuse to choose a model by the file that it is tested on.

    Raises:
        ConfigError: If validation reads a test annotation file and something is selected by its score, unless
            the configuration says ``allow_test_selection=True``.
    """
    selectors = _selectors(cfg)
    if not selectors or cfg.get("allow_test_selection", False):
        return
    shared = annotation_files(cfg.get("val_dataloader")) & annotation_files(cfg.get("test_dataloader"))
    if shared:
        raise ConfigError(
            f"{selectors[0]} would choose the model by the test file {sorted(shared)[0]}, because "
            f"val_dataloader and "
            "test_dataloader read the same annotations; validate on another split or set "
            "allow_test_selection=True"
        )


def check_accumulation(cfg: Config) -> None:
    """Require checkpoints between whole optimizer steps: gradients half accumulated are not saved.

    Raises:
        ConfigError: If the checkpoint or validation interval is no multiple of ``accumulative_counts``.
    """
    count = (cfg.get("optim_wrapper") or {}).get("accumulative_counts", 1)
    checkpoint = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
    intervals = {
        "default_hooks.checkpoint.interval": checkpoint.get("interval", -1),
        "train_cfg.val_interval": (cfg.get("train_cfg") or {}).get("val_interval", count),
    }
    for name, interval in intervals.items():
        if count > 1 and interval > 0 and interval % count:
            raise ConfigError(
                f"{name}={interval} is no multiple of optim_wrapper.accumulative_counts={count}, so a "
                f"checkpoint would "
                f"fall between optimizer steps; use {(interval // count + 1) * count}"
            )


def check_sharding(cfg: Config) -> None:
    """Require of ``fsdp`` what ``ultrasam.engine.sharding.shard_model`` takes.

    Raises:
        ConfigError: If it is no dictionary, or holds another key or a value of another type.
    """
    options = cfg.get("fsdp")
    if options is None:
        return
    kinds: dict[str, tuple[type, ...]] = {"modules": (list, tuple, str), "reshard_after_forward": (bool,)}
    if not isinstance(options, Mapping):
        raise ConfigError(f"fsdp must be None or a dictionary such as dict(), but is {options!r}")
    for key, value in options.items():
        if key not in kinds:
            raise ConfigError(f"fsdp has no option {key!r}; its options are {', '.join(kinds)}")
        if not isinstance(value, kinds[key]):
            wanted = " or ".join(kind.__name__ for kind in kinds[key])
            raise ConfigError(f"fsdp.{key} must be a {wanted}, but is {value!r}")


def check_config(cfg: Config) -> None:
    """Run every check of this module.

    Raises:
        ConfigError: For the first thing that is wrong.
    """
    check_names(cfg)
    check_selection(cfg)
    check_accumulation(cfg)
    check_sharding(cfg)
