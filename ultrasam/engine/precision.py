"""Number formats and speed switches, decided once from the configuration and the machine."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn
from torch.utils.checkpoint import checkpoint

from ultrasam.errors import ConfigError

FUSED_OPTIMIZERS = ("Adam", "AdamW", "SGD")


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Optimizer wrapper that runs the forward pass under bfloat16 autocast, on CUDA and on CPU alike.

    bfloat16 has the exponent range of float32, so no loss scaler is needed, and none of its waiting for the
    GPU. The parameters, their gradients and the optimizer state stay float32.

    Args:
        **kwargs: Arguments of :class:`mmengine.optim.OptimWrapper`.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Enter autocast and, between accumulated steps, skip the gradient exchange."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device_type=device, dtype=torch.bfloat16):
            yield


def _check_bfloat16() -> None:
    if torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
        raise ConfigError(
            f"the GPU {torch.cuda.get_device_name()} does not compute in bfloat16; "
            "set optim_wrapper.dtype=float16 or train without --amp"
        )


def cpu_computes_bfloat16() -> bool:
    """Return whether this CPU's kernels take bfloat16 (AVX-512 or better on x86); others crawl through it."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is None or bool(supported())


def resolve_optim_wrapper(cfg: Mapping[str, Any], *, amp: bool = False) -> dict[str, Any]:
    """Adapt an ``optim_wrapper`` configuration to this machine.

    ``AmpOptimWrapper`` with ``dtype='bfloat16'`` (or ``amp``) becomes :class:`BFloat16OptimWrapper`, or a wrapper in
    float32, with a warning, where there is only a CPU without bfloat16; an optimizer's ``fused='auto'`` becomes True
    on CUDA where PyTorch has a fused kernel and is removed elsewhere.

    Args:
        cfg: The configuration; it is not modified.
        amp: Ask for bfloat16 autocast whatever the configured type.

    Returns:
        A new configuration.

    Raises:
        ConfigError: If float16 is asked for on a CPU, or bfloat16 on a GPU without it.
    """
    resolved: dict[str, Any] = copy.deepcopy(dict(cfg))
    kind = resolved.get("type", "OptimWrapper")
    use_cuda = torch.cuda.is_available()
    wants_bfloat16 = amp or kind == "BFloat16OptimWrapper"
    if kind == "AmpOptimWrapper" and not amp:
        dtype = str(resolved.get("dtype", "float16")).removeprefix("torch.")
        if dtype == "bfloat16":
            wants_bfloat16 = True
        elif not use_cuda:
            raise ConfigError(
                f"optim_wrapper.dtype={dtype} needs a GPU; use dtype='bfloat16', which also runs on a CPU"
            )
    if wants_bfloat16:
        _check_bfloat16()
        resolved["type"] = "BFloat16OptimWrapper"
        if not use_cuda and not cpu_computes_bfloat16():
            resolved["type"] = "OptimWrapper"
            print_log(
                "This CPU has no kernels for bfloat16 and would train many times slower in it; it trains in float32.",
                logger="current",
                level=logging.WARNING,
            )
        for key in ("dtype", "loss_scale", "use_fsdp"):
            resolved.pop(key, None)
    optimizer = resolved.get("optimizer")
    if isinstance(optimizer, Mapping) and optimizer.get("fused") == "auto":
        optimizer = dict(optimizer)
        optimizer.pop("fused")
        if use_cuda and optimizer.get("type") in FUSED_OPTIMIZERS:
            optimizer["fused"] = True
        resolved["optimizer"] = optimizer
    return resolved


def set_float32_precision(tf32: bool) -> None:
    """Allow or forbid TF32 in the float32 matrix products and convolutions of a GPU; CPUs are left alone."""
    if not torch.cuda.is_available():
        return
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32


def matching_modules(model: nn.Module, patterns: list[str] | str, key: str) -> list[nn.Module]:
    """Return the sub-modules whose dotted names match the patterns, in the order of the model."""
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    named = [(name, module) for name, module in model.named_modules() if name]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name, _ in named):
            raise ConfigError(
                f"{key} names {pattern!r}, which matches no module of {type(model).__name__}; "
                f"its children are {', '.join(name for name, _ in model.named_children())}"
            )
    return [module for name, module in named if any(fnmatchcase(name, pattern) for pattern in patterns)]


def recompute_activations(model: nn.Module, patterns: list[str] | str) -> int:
    """Recompute the activations of some modules in the backward pass instead of storing them.

    Args:
        model: The model, unwrapped.
        patterns: Dotted module names, with ``*`` as wildcard, such as ``sam.image_encoder.blocks.*``; a ``*``
            also matches dots, so name modules that do not contain one another.

    Returns:
        How many modules were changed.
    """
    modules = matching_modules(model, patterns, "recompute_modules")
    for module in modules:
        module.forward = partial(_recomputed, module, module.forward)  # type: ignore[method-assign]
    return len(modules)


def _recomputed(module: nn.Module, forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not (module.training and torch.is_grad_enabled()):
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def compile_modules(model: nn.Module, patterns: list[str] | str, **options: Any) -> int:
    """Compile some modules in place; names in the state dict stay as they are.

    Args:
        model: The model, unwrapped.
        patterns: Dotted module names, with ``*`` as wildcard.
        **options: Arguments of :func:`torch.compile`, such as ``mode`` or ``dynamic``.

    Returns:
        How many modules were compiled.
    """
    modules = matching_modules(model, patterns, "compile.modules")
    for module in modules:
        module.compile(**options)
    return len(modules)
