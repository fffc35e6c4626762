"""Training checkpoints: plain values and tensors only, written whole or not at all, opened safely.

MMEngine's checkpoints pickle objects of its own classes, which ``torch.load(weights_only=True)`` refuses.
Ours hold nothing but dictionaries, lists, numbers, strings and tensors::

    format         "ultrasam-training-1"
    meta           epoch, iter, seed, cfg (text), experiment_name, time, versions, world_size
    card           what the model says of itself (``model.card()``), or {}
    state_dict     the weights
    optimizer, param_schedulers, message_hub, random_states (one of each process), data (sampler position)
"""

from __future__ import annotations

import os
import pickle
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, MessageHub, print_log
from torch import nn

from ultrasam.errors import CheckpointError

FORMAT = "ultrasam-training-1"
POINTER = "last_checkpoint"


def to_plain(value: Any, where: str) -> Any:
    """Copy a value into dictionaries, lists, tuples, numbers, strings and CPU tensors.

    Args:
        value: NumPy scalars and arrays become numbers and lists, paths become strings.
        where: Name of the value, for the error message.

    Returns:
        A value that ``torch.load(weights_only=True)`` accepts.

    Raises:
        CheckpointError: If the value holds an object of any other class.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, bytes):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {to_plain(k, f"a key of {where}"): to_plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(to_plain(v, f"{where}[{i}]") for i, v in enumerate(value))
    if isinstance(value, Iterable) and not isinstance(value, nn.Module):
        return [to_plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    raise CheckpointError(
        f"{where} is a {type(value).__name__}, which a checkpoint cannot hold; "
        "make it of numbers, strings, lists, dictionaries or tensors"
    )


def hub_state(hub: MessageHub) -> dict[str, Any]:
    """Return the message hub as plain values: each history as two lists of numbers.

    Entries of ``runtime_info`` that are not plain are left out with a warning; they are caches of hooks.
    """
    state = hub.state_dict()
    scalars = {}
    for name, history in state["log_scalars"].items():
        log, count = history.data
        scalars[name] = {"log": log.tolist(), "count": count.tolist(), "max_length": history.max_length}
    info = {}
    for name, value in state["runtime_info"].items():
        try:
            info[name] = to_plain(value, f"message_hub.{name}")
        except CheckpointError as error:
            print_log(f"Not saved: {error}", logger="current", level="WARNING")
    kept = {
        name: bool(flag) for name, flag in state["resumed_keys"].items() if name in scalars or name in info
    }
    return {"log_scalars": scalars, "runtime_info": info, "resumed_keys": kept}


def load_hub_state(hub: MessageHub, state: Mapping[str, Any]) -> None:
    """Put what :func:`hub_state` returned back into a message hub."""
    histories = {
        name: HistoryBuffer(saved["log"], saved["count"], saved["max_length"])
        for name, saved in state["log_scalars"].items()
    }
    hub.load_state_dict({**state, "log_scalars": histories})


def load_scheduler_state(scheduler: Any, state: Mapping[str, Any]) -> None:
    """Restore a parameter scheduler; its milestones were saved as a plain dictionary."""
    counters = [name for name, value in vars(scheduler).items() if isinstance(value, Counter)]
    scheduler.load_state_dict({k: Counter(v) if k in counters else v for k, v in state.items()})


def load_optimizer_state(optim_wrapper: Any, state: dict[str, Any]) -> None:
    """Restore an optimizer, keeping this machine's kernels (``fused``, ``foreach``)."""
    optimizer = optim_wrapper.optimizer
    kernels = ("fused", "foreach", "capturable")
    current = [{k: group[k] for k in kernels if k in group} for group in optimizer.param_groups]
    if len(state["param_groups"]) != len(current):
        raise CheckpointError(
            f"the checkpoint has {len(state['param_groups'])} parameter groups but the optimizer has "
            f"{len(current)}; "
            "resume with the configuration it was trained with"
        )
    optim_wrapper.load_state_dict(dict(state))
    for group, choice in zip(optimizer.param_groups, current, strict=True):
        group.update(choice)


def write_checkpoint(checkpoint: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a checkpoint beside its final name, flush it to the disk, then rename.

    A killed process leaves the previous file of that name intact, and at most one ``.NAME.part`` that the
    next write replaces.

    Args:
        checkpoint: Any values that :func:`to_plain` accepts.
        path: Where to write.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.part")
    plain = to_plain(dict(checkpoint), "checkpoint")
    with part.open("wb") as stream:
        torch.save(plain, stream)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(target)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all (UTF-8)."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Open one of our training checkpoints on the CPU, never running code from the file.

    Raises:
        CheckpointError: If the file is missing, damaged, or not one of ours.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"the checkpoint {path} does not exist; check the path")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be opened as a training checkpoint of UltraSam, because it is damaged or holds "
            f"objects "
            f"({(str(error).splitlines() or ['empty'])[0]}); start from foreign weights with --weights"
        ) from error
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is no training checkpoint of UltraSam (its format is not {FORMAT!r}); "
            "start from it with --weights instead of --resume"
        )
    return checkpoint


def latest_checkpoint(work_dir: str | os.PathLike[str]) -> Path | None:
    """Return the newest training checkpoint of a folder, also after the folder was moved; None where none is.

    The file ``last_checkpoint`` decides; where it is missing or stale, the highest ``iter_N.pth`` or
    ``epoch_N.pth``.
    """
    folder = Path(work_dir)
    pointer = folder / POINTER
    if pointer.is_file():
        named = Path(pointer.read_text(encoding="utf-8").strip())
        for candidate in (folder / named.name, named):
            if named.name and candidate.is_file():
                return candidate
    numbered = []
    for path in folder.glob("*.pth"):
        match = re.fullmatch(r"(?:iter|epoch)_(\d+)\.pth", path.name)
        if match:
            numbered.append((int(match.group(1)), path))
    return max(numbered)[1] if numbered else None


def load_exactly(model: nn.Module, state: Mapping[str, torch.Tensor], path: str | os.PathLike[str]) -> None:
    """Load weights that must be those of this very architecture.

    Raises:
        CheckpointError: If a name is missing or superfluous, or a shape differs.
    """
    expected = model.state_dict()
    missing = sorted(set(expected) - set(state))
    extra = sorted(set(state) - set(expected))
    wrong = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(set(expected) & set(state))
        if isinstance(expected[name], torch.Tensor) and state[name].shape != expected[name].shape
    ]
    found = [
        f"{len(names)} {what} (such as {names[0]})"
        for names, what in (
            (missing, "weights are missing"),
            (extra, "are unknown"),
            (wrong, "have another shape"),
        )
        if names
    ]
    if found:
        raise CheckpointError(
            f"{path} is of another architecture than {type(model).__name__}: {', '.join(found)}; "
            "use the configuration it was trained with"
        )
    model.load_state_dict(state, strict=True)


def follow_card(model: nn.Module, card: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Give the network the form that its weights were trained in, which their names and shapes do not show.

    Args:
        model: Unwrapped model, or its SAM network; models without a card are left alone.
        card: The checkpoint's card; ``architecture`` is compared, ``mlp_residual`` is set.
        path: The checkpoint, for the error message.

    Raises:
        CheckpointError: If the card names another architecture than the model's.
    """
    own = model.card() if callable(getattr(model, "card", None)) else {}  # type: ignore[operator]
    wanted, found = own.get("architecture"), card.get("architecture")
    if wanted is not None and found is not None and wanted != found:
        raise CheckpointError(
            f"{path} is of another architecture: its card says {found!r} but the configuration builds "
            f"{wanted!r}; "
            "use the configuration it was trained with"
        )
    set_residual = getattr(getattr(model, "sam", model), "set_mlp_residual", None)
    if set_residual is not None and "mlp_residual" in card:
        set_residual(card["mlp_residual"])


def weight_file(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the file that a path or a name of known weights stands for.

    Raises:
        CheckpointError: If it is neither.
    """
    from ultrasam.checkpoints import resolve_weights

    return resolve_weights(os.fspath(name_or_path))


def load_weights(model: nn.Module, name_or_path: str | os.PathLike[str]) -> str:
    """Load weights into a model: our own checkpoints whole, other files into its SAM network.

    Args:
        model: Unwrapped model. Where it has an attribute ``sam``, foreign files are loaded into that network.
        name_or_path: A checkpoint of this engine, any format that :mod:`ultrasam.checkpoints` reads, or a
            name that it knows.

    Returns:
        What was loaded, for people.

    Raises:
        CheckpointError: If the file cannot be used for this model.
    """
    from ultrasam.checkpoints import load_checkpoint

    path = weight_file(name_or_path)
    own = _own_checkpoint(path)
    if own is not None and set(own["state_dict"]) == set(model.state_dict()):
        load_exactly(model, own["state_dict"], path)
        follow_card(model, own["card"], path)
        return f"all {len(own['state_dict'])} weights of {path}"
    # Models with an adapter know how to put weights below it.
    load = getattr(model, "load_weights", None)
    return str(load(str(path)) if callable(load) else load_checkpoint(getattr(model, "sam", model), path))


def origin_of(name_or_path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a training that starts from a file must say of it: name, SHA-256, and what it was trained on."""
    from ultrasam.checkpoints import sha256_of

    path = weight_file(name_or_path)
    own = _own_checkpoint(path) or {}
    training = (own.get("card") or {}).get("training")
    origin: dict[str, Any] = {"file": path.name, "sha256": sha256_of(path)}
    return {**origin, "training": training} if training else origin


def _own_checkpoint(path: Path) -> dict[str, Any] | None:
    """Return one of our training checkpoints, None for any other file."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError):
        return None
    ours = isinstance(checkpoint, dict) and checkpoint.get("format") == FORMAT
    return checkpoint if ours else None
