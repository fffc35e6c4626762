"""Learning rates that shrink towards the first layers of a backbone (Bao et al. 2022, BEiT)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from ultrasam.errors import ConfigError
from ultrasam.modeling.common import LayerNorm2d
from ultrasam.models.backbones.base import Backbone

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm, LayerNorm2d)


@dataclass(frozen=True)
class Grouping:
    """How parameters are grouped (``paramwise_cfg`` of ``LayerDecayConstructor``).

    Attributes:
        backbone_lr_mult: factor of the learning rate of every ``Backbone``.
        layer_decay: the rate of depth k of the L of a ``Backbone`` is multiplied by ``layer_decay ** (L - k)``.
        no_decay_1d: no weight decay for vectors (biases, normalisations, scales), tables of positions and tokens.
        no_decay_norms: no weight decay for normalisations.
        no_decay_names: no weight decay for parameters whose name has one of these in it.
    """

    backbone_lr_mult: float = 1.0
    layer_decay: float = 1.0
    no_decay_1d: bool = True
    no_decay_norms: bool = True
    no_decay_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 < self.layer_decay <= 1.0 or self.backbone_lr_mult < 0.0 or isinstance(self.no_decay_names, str):
            raise ConfigError(
                "paramwise_cfg of LayerDecayConstructor needs layer_decay in (0, 1], backbone_lr_mult of at least 0, "
                f"and a list of no_decay_names; got {vars(self)}"
            )

    def undecayed(self, name: str, parameter: nn.Parameter, norm: bool) -> bool:
        """Whether weight decay leaves a parameter alone."""
        vector = parameter.ndim <= 1 or name.endswith(("pos_embed", "bias_table", "_token"))
        named = any(part in name for part in self.no_decay_names)
        return (self.no_decay_1d and vector) or (self.no_decay_norms and norm) or named


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayConstructor(DefaultOptimWrapperConstructor):
    """Optimizer over what trains of a model, with rates and weight decay by depth and kind (``Grouping``).

    MMEngine's own also takes what is frozen, and warns of every parameter of it.
    """

    def __call__(self, model: nn.Module) -> Any:
        """Build the optimizer wrapper over the trained parameters of a model.

        Raises:
            ConfigError: an option that does not exist or fit, or nothing to train.
        """
        try:
            grouping = Grouping(**(self.paramwise_cfg or {}))
        except TypeError as error:
            raise ConfigError(f"paramwise_cfg of LayerDecayConstructor: {error}; see Grouping") from error
        optimizer = dict(self.optimizer_cfg)
        optimizer["params"] = parameter_groups(
            getattr(model, "module", model), grouping, float(optimizer["lr"]), float(optimizer.get("weight_decay", 0.0))
        )
        wrapper = {"type": "OptimWrapper", **self.optim_wrapper_cfg}
        return OPTIM_WRAPPERS.build(wrapper, default_args={"optimizer": OPTIMIZERS.build(optimizer)})


def parameter_groups(
    model: nn.Module, grouping: Grouping, rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Return the trained parameters of a model in groups of one rate and decay.

    Raises:
        ConfigError: nothing trains.
    """
    scales = rate_scales(model, grouping.layer_decay, grouping.backbone_lr_mult)
    norms = {id(p) for module in model.modules() if isinstance(module, NORMS) for p in module.parameters(recurse=False)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            undecayed = grouping.undecayed(name, parameter, id(parameter) in norms)
            groups.setdefault((scales.get(name, 1.0), 0.0 if undecayed else weight_decay), []).append(parameter)
    if not groups:
        raise ConfigError("nothing of the model trains; freeze less")
    return [{"params": found, "lr": rate * scale, "weight_decay": decay} for (scale, decay), found in groups.items()]


def rate_scales(model: nn.Module, decay: float, multiplier: float) -> dict[str, float]:
    """Return the factor of the learning rate of every parameter of the backbones in a model, by name."""
    scales = {}
    for prefix, module in model.named_modules():
        if isinstance(module, Backbone):
            for name, _ in module.named_parameters():
                depth = module.layers - module.layer_of(name)
                scales[f"{prefix}.{name}".lstrip(".")] = multiplier * decay**depth
    return scales
