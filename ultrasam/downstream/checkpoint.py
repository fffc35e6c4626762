"""Checkpoints of the other tasks: told by what the file says of itself, rebuilt from the configuration that it carries.

A file from elsewhere runs no code here. Weights are read by ``torch.load(weights_only=True)``; the configuration is
read as data (``ultrasam.downstream.plain``); and because MMEngine's registries call whatever a ``type`` names, by its
full path any function of Python, only the types below may stand in it. Paths in it (weights to start from, caches) are
dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ultrasam.downstream.plain import read_plain
from ultrasam.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    import torch

Task = Literal["classify", "prompted-classify", "regress", "detect"]
MODELS: dict[str, Task] = {
    "ImageClassifier": "classify",
    "PromptedClassifier": "prompted-classify",
    "ImageRegressor": "regress",
    "Mask2FormerDetector": "detect",
}
NAMES = {
    "classify": "a classifier of whole images",
    "prompted-classify": "a prompted classifier",
    "regress": "a regressor of whole images",
    "detect": "a Mask2Former that finds objects by itself",
}
BACKBONES = ("ResNetBackbone", "SamBackbone", "Dinov2Backbone", "UsfmBackbone", "DeblurringMimBackbone")
FORMAT = "ultrasam-training-1"
# What only training uses: files to start from, folders, random starts.
_DROPPED = ("weights", "decoder_weights", "cache_dir", "cache_bytes", "data_preprocessor", "init_cfg")


@dataclass(frozen=True)
class TaskCheckpoint:
    """A training checkpoint of another task than prompted segmentation.

    Attributes:
        path: the file.
        task: what its model does.
        card: what the model says of itself.
        meta: of the training.
        state: the weights.
    """

    path: Path
    task: Task
    card: Mapping[str, Any]
    meta: Mapping[str, Any]
    state: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Rebuilt:
    """A model with its weights, ready to predict.

    Attributes:
        model: ``ImageClassifier``, ``PromptedClassifier``, ``ImageRegressor`` or ``Mask2FormerDetector``.
        config: what it was built from, without paths.
        data: the configuration of the data set that it was tested on, {} where there is none.
        device: where it is.
        checkpoint: the file.
    """

    model: Any
    config: dict[str, Any]
    data: dict[str, Any]
    device: torch.device
    checkpoint: TaskCheckpoint

    @property
    def name(self) -> str:
        """The model's name, for outputs."""
        path = self.checkpoint.path
        return f"{path.parent.name}/{path.name}" if path.parent.name else path.name


def recognise(weights: str | Path | None) -> TaskCheckpoint | None:
    """Return the checkpoint where a file is one of another task; None for all else, also for files that are damaged.

    Raises:
        CheckpointError: there is no such file or name.
    """
    if weights is None:
        return None
    import pickle

    import torch

    from ultrasam.checkpoints.weights import base_and_file

    base, path = base_and_file(weights)
    if base is not None or not path.is_file():
        return None
    try:
        # Mapped, so that the tensors of other files are not read twice.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, OSError):
        # No training checkpoint of ours, which all open so; what is wrong is said where the network is loaded.
        return None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return None
    card, meta, state = (content.get(name) for name in ("card", "meta", "state_dict"))
    if not isinstance(state, dict) or not all(isinstance(part, torch.Tensor) for part in state.values()):
        return None
    card, meta = (part if isinstance(part, dict) else {} for part in (card, meta))
    task = _task(card, meta)
    return None if task is None else TaskCheckpoint(path, task, card, meta, state)


def _task(card: Mapping[str, Any], meta: Mapping[str, Any]) -> Task | None:
    """Return the task by the card, or where it says none by the type of the model in the configuration."""
    said = card.get("task")
    if said == "segment" and card.get("architecture") == "mask2former":
        return "detect"
    for task in MODELS.values():
        if said == task and task != "detect":
            return task
    if said is not None or "architecture" in card:
        return None
    try:
        model = read_plain(meta.get("cfg"), "the checkpoint").get("model")
    except CheckpointError:
        # Without a card and a readable configuration nothing tells the task; it is treated as weights of SAM.
        return None
    kind = model.get("type") if isinstance(model, dict) else None
    return MODELS.get(kind.removeprefix("mmdet.")) if isinstance(kind, str) else None


def rebuild(checkpoint: TaskCheckpoint, config: str | Path | None = None, device: str | None = None) -> Rebuilt:
    """Build the model of a checkpoint and load its weights, every one of them.

    Args:
        checkpoint: of ``recognise``.
        config: a configuration file, which is executed as training does, in place of the text in the checkpoint.
        device: "cpu", "cuda", ...; None for CUDA where there is a GPU.

    Raises:
        CheckpointError: configuration and weights do not fit, or the configuration is not plain values.
        ConfigError: a value in it does not exist; or there is no such device.
    """
    import torch

    from ultrasam.inference.model import choose_device

    where = str(checkpoint.path)
    values = read_plain(checkpoint.meta.get("cfg"), where) if config is None else _trusted(config)
    model_config = safe_model(values.get("model"), where if config is None else str(config), checkpoint.task)
    chosen = choose_device(device)
    from ultrasam.engine.setup import register_all

    register_all()
    from mmdet import registry

    from ultrasam.engine.checkpointing import follow_card, load_exactly

    # Building draws random weights; the caller's random numbers stay as they would be without it.
    with torch.random.fork_rng(devices=[]), _quiet():
        try:
            model = registry.MODELS.build(dict(model_config))
        except (TypeError, ValueError, AssertionError, KeyError, AttributeError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CheckpointError(f"the model in the configuration of {where} cannot be built: {reason}") from error
    load_exactly(model, checkpoint.state, checkpoint.path)
    follow_card(model, checkpoint.card, checkpoint.path)
    model = model.eval().requires_grad_(False).to(chosen)
    return Rebuilt(model, model_config, _data(values), chosen, checkpoint)


def safe_model(model: Any, where: str, task: Task) -> dict[str, Any]:
    """Return the configuration of a model without paths, in which every ``type`` is one that is known here.

    Raises:
        CheckpointError: there is none, or it names another type.
    """
    if not isinstance(model, dict):
        raise CheckpointError(f"{where} says nothing of the model; give the configuration with --config FILE")
    kind = str(model.get("type", "")).removeprefix("mmdet.")
    if MODELS.get(kind) != task:
        raise CheckpointError(
            f"{where}: the weights are of {NAMES[task]}, but the model of the configuration is "
            f"{model.get('type')!r}; give the one they were trained with by --config FILE"
        )
    kept = {name: value for name, value in model.items() if name not in _DROPPED}
    kept["type"] = f"mmdet.{kind}"
    backbone = kept.get("backbone")
    if isinstance(backbone, dict):
        inner = str(backbone.get("type", "")).removeprefix("mmdet.")
        if inner not in BACKBONES:
            raise _unknown(where, backbone.get("type"))
        kept["backbone"] = {name: value for name, value in backbone.items() if name not in _DROPPED}
        kept["backbone"]["type"] = f"mmdet.{inner}"
    elif "backbone" in kept:
        raise _unknown(where, backbone)
    for name, value in kept.items():
        parts = value.items() if name == "backbone" else [(name, value)]
        for key, part in parts:
            if key != "type":
                _require_no_types(part, where)
    return kept


def _unknown(where: str, found: Any) -> CheckpointError:
    known = ", ".join((*MODELS, *BACKBONES))
    return CheckpointError(f"the configuration of {where} names the type {found!r}, which prediction does not build; "
                           f"known are {known}")  # fmt: skip


def _require_no_types(value: Any, where: str) -> None:
    """Refuse what a registry would look up."""
    if isinstance(value, Mapping):
        for name in ("type", "_scope_"):
            if name in value:
                raise _unknown(where, value[name])
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            _require_no_types(part, where)


def _trusted(path: str | Path) -> dict[str, Any]:
    from ultrasam.engine.config import load_config

    found: dict[str, Any] = load_config(path).to_dict()
    return found


def _data(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of the first data set, of testing where there is one."""
    for loader in ("test_dataloader", "train_dataloader"):
        waiting = [values.get(loader)]
        while waiting:
            part = waiting.pop(0)
            if isinstance(part, dict):
                if "ann_file" in part:
                    return part
                waiting += [part[name] for name in ("dataset", "datasets") if name in part]
            elif isinstance(part, list):
                waiting += part
    return {}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back that a model begins with random weights, which are replaced at once."""
    logger = logging.getLogger("ultrasam.models.backbones.base")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def require_no_config(config: str | None) -> None:
    """Refuse a configuration beside weights that need none.

    Raises:
        ConfigError: there is one.
    """
    if config is not None:
        raise ConfigError("--config belongs to a checkpoint of a classifier, regressor or Mask2Former; leave it out")
