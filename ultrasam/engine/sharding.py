"""Fully sharded training (FSDP): every process holds a part of the weights, their gradients and the optimizer's state.

PyTorch's ``fully_shard`` keeps the names of all weights and replaces the parameters by distributed tensors. Checkpoints
are written with whole tensors, so a run can continue with another number of processes, or without sharding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.device import get_device
from torch import nn

from ultrasam.engine.distributed import process_count
from ultrasam.engine.precision import matching_modules
from ultrasam.errors import ConfigError

# A whole encoder block at a time is gathered; the rest of the network is one more group.
DEFAULT_MODULES = ("sam.image_encoder.blocks.*",)


@dataclass(frozen=True)
class Sharding:
    """What is sharded of a model; made by :func:`shard_model`.

    Attributes:
        modules: What is gathered and freed at a time, the model itself last.
        reshard_after_forward: Whether the weights of modules (the model excepted) are freed after their forward pass.
    """

    modules: tuple[Any, ...]
    reshard_after_forward: bool

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Hold whole weights meanwhile, so that processes may run the model unequally often, as tests do."""
        for module in self.modules:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        try:
            yield
        finally:
            for module in self.modules:
                inner = module is not self.modules[-1]
                module.set_reshard_after_forward(inner and self.reshard_after_forward, recurse=False)
                module.reshard()


def shard_model(
    model: nn.Module, modules: list[str] | str | None = None, reshard_after_forward: bool = True
) -> Sharding:
    """Shard a model over all processes, in place.

    Args:
        model: The model with its final weights, the same on every process, on its device.
        modules: Dotted names, with ``*`` as wildcard, of what is gathered and freed at a time. Every process must call
            these modules equally often in a step. Modules inside a named one are part of it; what no name covers is
            gathered once a step. None for :data:`DEFAULT_MODULES`.
        reshard_after_forward: Free a module's weights after its forward pass and gather them again for the backward
            pass: the least memory. False gathers once and keeps them.

    Raises:
        ConfigError: PyTorch is too old, a name matches nothing, or the model does not run alike on all processes.
    """
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
    except ImportError as error:
        raise ConfigError(
            f"fsdp needs PyTorch 2.6 or newer, but {torch.__version__} is installed; update it or remove fsdp"
        ) from error
    if getattr(model, "cache_dir", None) is not None:
        raise ConfigError(
            "fsdp needs every process to run the same modules, but with cache_dir a process skips the encoder for "
            "images that it finds in the cache; remove one of the two (a frozen encoder needs no sharding)"
        )
    mesh = init_device_mesh(get_device(), (process_count(),))
    chosen = outermost(model, list(DEFAULT_MODULES) if modules is None else modules)
    for module in chosen:
        fully_shard(module, mesh=mesh, reshard_after_forward=reshard_after_forward)
    # The backward pass begins with what the forward pass of the whole ended with.
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    return Sharding((*chosen, model), reshard_after_forward)


def outermost(model: nn.Module, patterns: list[str] | str) -> list[nn.Module]:
    """Return the modules whose names match, without those inside another one: ``*`` also matches dots."""
    matching = matching_modules(model, patterns, "fsdp.modules")
    inner = {id(child) for module in matching for child in module.modules() if child is not module}
    return [module for module in matching if id(module) not in inner]


def whole(value: Any, keep: bool = True) -> Any:
    """Copy nested dictionaries, lists and tuples with distributed tensors made whole; every process must call this.

    Args:
        value: Such as a state dictionary.
        keep: False gives None in place of a distributed tensor, for processes that need not hold it.
    """
    if hasattr(value, "full_tensor"):
        full = value.full_tensor()
        return full.cpu() if keep else None
    if isinstance(value, Mapping):
        return {name: whole(child, keep) for name, child in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(whole(child, keep) for child in value)
    return value


def shard_like(state: Mapping[str, Any], parameters: list[nn.Parameter]) -> dict[str, Any]:
    """Distribute an optimizer's whole state as its parameters are.

    Args:
        state: ``state_dict()`` of an optimizer with whole tensors; its numbers are positions in ``parameters``.
        parameters: Of the optimizer, in the order of its groups.

    Returns:
        The state to load; where the parameters are not sharded, as it was.
    """

    def part(value: Any, parameter: Any) -> Any:
        fits = isinstance(value, torch.Tensor) and value.shape == parameter.shape and value.dim() > 0
        if not fits or not hasattr(parameter, "full_tensor"):
            return value
        # Not in PyTorch 2.4, which resumes here, too, and shards nothing.
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)

    states = {
        number: {name: part(value, parameters[number]) for name, value in values.items()}
        for number, values in state["state"].items()
    }
    return {**state, "state": states}
