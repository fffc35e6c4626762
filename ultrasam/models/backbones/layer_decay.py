"""Learning rates that shrink towards the first layers of a backbone (Bao et al. 2022, BEiT)."""

from __future__ import annotations

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from ultrasam.errors import ConfigError
from ultrasam.models.backbones.base import Backbone


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayConstructor(DefaultOptimWrapperConstructor):
    """Optimizer whose rate for depth k of L of a ``Backbone`` is ``lr * decay ** (L - k)``; all else has ``lr``.

    ``paramwise_cfg`` takes ``layer_decay`` (0 to 1), ``no_decay_1d`` (no weight decay for vectors such as biases,
    norms and scales, and for tables of positions; True unless set), and ``backbone_lr_mult`` (1 unless set).
    """

    def __call__(self, model: nn.Module) -> Any:
        """Build the optimizer wrapper over the trained parameters of a model."""
        options = dict(self.paramwise_cfg or {})
        decay = float(options.pop("layer_decay", 1.0))
        sparing = bool(options.pop("no_decay_1d", True))
        multiplier = float(options.pop("backbone_lr_mult", 1.0))
        if options or not 0.0 < decay <= 1.0 or multiplier < 0.0:
            raise ConfigError(
                f"paramwise_cfg of LayerDecayConstructor takes layer_decay (0 to 1), no_decay_1d and backbone_lr_mult, "
                f"got {self.paramwise_cfg}"
            )
        model = getattr(model, "module", model)
        scales = rate_scales(model, decay, multiplier)
        optimizer = dict(self.optimizer_cfg)
        base_lr, weight_decay = float(optimizer["lr"]), float(optimizer.get("weight_decay", 0.0))
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                plain = sparing and (parameter.ndim <= 1 or name.endswith(("pos_embed", "bias_table", "_token")))
                groups.setdefault((scales.get(name, 1.0), 0.0 if plain else weight_decay), []).append(parameter)
        optimizer["params"] = [
            {"params": members, "lr": base_lr * scale, "weight_decay": decayed}
            for (scale, decayed), members in groups.items()
        ]
        built = OPTIMIZERS.build(optimizer)
        wrapper = dict(self.optim_wrapper_cfg)
        wrapper.setdefault("type", "OptimWrapper")
        return OPTIM_WRAPPERS.build(wrapper, default_args={"optimizer": built})


def rate_scales(model: nn.Module, decay: float, multiplier: float) -> dict[str, float]:
    """Return the factor of the learning rate of every parameter of the backbones in a model, by name."""
    scales = {}
    for prefix, module in model.named_modules():
        if isinstance(module, Backbone):
            for name, _ in module.named_parameters():
                depth = module.layers - module.layer_of(name)
                scales[f"{prefix}.{name}".lstrip(".")] = multiplier * decay**depth
    return scales
