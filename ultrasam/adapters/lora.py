"""LoRA on the attention of the image encoder, through the peft library (Hu et al. 2021; UltraSam's Table 2).

``y = W x + b + alpha / rank * B A dropout(x)`` with B zero at the start. peft puts a module around each linear layer;
here that module gives and takes its base weights by SAM's names, so plain files load as ever.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ultrasam.adapters.options import LoraOptions
from ultrasam.adapters.sharing import share
from ultrasam.errors import ConfigError
from ultrasam.modeling.image_encoder import EncoderAttention
from ultrasam.modeling.tiny_vit import WindowAttention

ADAPTER = "default"
# Names inside peft's module, and in state dicts.
_NAMES = (
    ("base_layer.", ""),
    (f"lora_A.{ADAPTER}.", "lora_A."),
    (f"lora_B.{ADAPTER}.", "lora_B."),
)


class LoraAttention(EncoderAttention):
    """SAM's attention with LoRA in its projection, also where windows are padded."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, h, w, dim) to the same."""
        batch, height, width, _ = x.shape
        side = self.window
        pad_h, pad_w = (-height % side, -width % side) if side else (0, 0)
        if not (pad_h or pad_w):
            return super().forward(x)
        # Padded cells are zeros, of which LoRA gives zeros. The plain attention takes the weight itself in this
        # case, without the module around it; the same sums in the same order, so that B = 0 changes no bit.
        pad = (0, 0, 0, pad_w, 0, pad_h)
        layer: Any = self.qkv
        qkv = F.pad(F.linear(x, layer.weight), pad)
        qkv = qkv + layer.bias.to(qkv.dtype) + F.pad(lora_branch(layer, x), pad)
        rows, columns = (height + pad_h) // side, (width + pad_w) // side
        windows = qkv.reshape(batch, rows, side, columns, side, -1).transpose(2, 3).flatten(0, 2).flatten(1, 2)
        out = self.attend(windows, (side, side)).reshape(batch, rows, columns, side, side, -1).transpose(2, 3)
        return self.proj(out.reshape(batch, height + pad_h, width + pad_w, -1)[:, :height, :width])


class SplitQkv(nn.Module):
    """A fused projection as three layers, so that queries and values can be adapted without the keys.

    In state dicts it is the fused layer (``weight``, ``bias``), with ``q.lora_A.weight`` and so on beside.

    Args:
        fused: the projection, 3 * dim rows; its weights are shared where slices can be.
        heads: of the attention.
        by_head: the rows of one head's queries, keys and values lie together (TinyViT), not those of all heads (SAM).
    """

    def __init__(self, fused: nn.Linear, heads: int, by_head: bool) -> None:
        super().__init__()
        self.heads, self.by_head = heads, by_head
        for name, weight, bias in zip("qkv", self.split(fused.weight), self.split(fused.bias), strict=True):
            part = nn.Linear(1, 1)
            part.in_features, part.out_features = weight.shape[1], weight.shape[0]
            part.weight = nn.Parameter(weight.detach(), requires_grad=False)
            part.bias = nn.Parameter(bias.detach(), requires_grad=False)
            setattr(self, name, part)
        self._register_state_dict_hook(_fuse)
        self._register_load_state_dict_pre_hook(self._take)

    @property
    def parts(self) -> list[Any]:
        """The layers of queries, keys and values."""
        return [self.q, self.k, self.v]

    def split(self, fused: Tensor) -> tuple[Tensor, ...]:
        """Return the rows of queries, keys and values."""
        if not self.by_head:
            return fused.chunk(3)
        by_head = fused.unflatten(0, (self.heads, 3, -1))
        return tuple(by_head[:, part].flatten(0, 1) for part in range(3))

    def join(self, parts: list[Tensor], dim: int = 0) -> Tensor:
        """Put queries, keys and values back together along ``dim``; the inverse of ``split``."""
        if not self.by_head:
            return torch.cat(parts, dim)
        dim %= parts[0].ndim
        stacked = torch.stack([part.unflatten(dim, (self.heads, -1)) for part in parts], dim + 1)
        return stacked.flatten(dim, dim + 2)

    @property
    def weight(self) -> Tensor:
        """The fused weight (3 * dim, dim) without LoRA."""
        return self.join([part.weight for part in self.parts])

    @property
    def bias(self) -> Tensor:
        """The fused bias (3 * dim,)."""
        return self.join([part.bias for part in self.parts])

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., dim) to (..., 3 * dim)."""
        return self.join([part(x) for part in self.parts], dim=-1)

    def _take(self, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
        for name in ("weight", "bias"):
            if f"{prefix}{name}" in state:
                for part, value in zip("qkv", self.split(state.pop(f"{prefix}{name}")), strict=True):
                    state[f"{prefix}{part}.{name}"] = value


def _fuse(module: SplitQkv, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for name in ("weight", "bias"):
        state[f"{prefix}{name}"] = module.join([state.pop(f"{prefix}{part}.{name}") for part in "qkv"])


def lora_branch(layer: Any, x: Tensor) -> Tensor:
    """Return what LoRA adds to a projection of ``x`` (..., dim): (..., 3 * dim)."""
    if isinstance(layer, SplitQkv):
        parts = [lora_branch(part, x) for part in layer.parts]
        return layer.join(parts, dim=-1)
    if not hasattr(layer, "lora_A"):
        return x.new_zeros(*x.shape[:-1], layer.out_features)
    low = layer.lora_A[ADAPTER](layer.lora_dropout[ADAPTER](x))
    return layer.lora_B[ADAPTER](low) * layer.scaling[ADAPTER]


def attentions(encoder: nn.Module) -> Iterator[tuple[nn.Module, EncoderAttention | WindowAttention]]:
    """Yield every block with an attention, and the attention."""
    for block in encoder.modules():
        attention = block._modules.get("attn")
        if isinstance(attention, EncoderAttention | WindowAttention):
            yield block, attention


def lora_layers(encoder: nn.Module) -> Iterator[Any]:
    """Yield peft's modules of an adapted encoder."""
    return (module for module in encoder.modules() if hasattr(module, "lora_A"))


def add_lora(encoder: nn.Module, options: LoraOptions) -> list[tuple[nn.Module, str, nn.Module]]:
    """Put LoRA on every attention of an image encoder, identity at the start.

    Args:
        encoder: SAM's ViT, or TinyViT.
        options: rank, alpha, dropout, targets.

    Returns:
        What was exchanged: (block, "attn", the attention before).

    Raises:
        ConfigError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError("LoRA needs the package peft; run pip install 'ultrasam[peft]'") from error
    exchanged: list[tuple[nn.Module, str, nn.Module]] = []
    adapted = nn.ModuleDict()
    for number, (block, attention) in enumerate(list(attentions(encoder))):
        plain = isinstance(attention, EncoderAttention)
        twin: Any = share(attention, LoraAttention if plain else type(attention))
        if options.targets == "qv":
            twin.qkv = SplitQkv(twin.qkv, attention.heads, by_head=not plain)
        adapted[str(number)] = twin
        exchanged.append((block, "attn", attention))
    target = r"\d+\.qkv" if options.targets == "qkv" else r"\d+\.qkv\.[qv]"
    values: dict[str, Any] = dict(r=options.rank, lora_alpha=options.alpha, lora_dropout=options.dropout, bias="none")
    config = LoraConfig(target_modules=target, **values)
    with warnings.catch_warnings():
        # peft looks for a language model's configuration.
        warnings.simplefilter("ignore")
        inject_adapter_in_model(config, adapted, ADAPTER)
    for layer in lora_layers(adapted):
        layer._register_state_dict_hook(_to_plain_names)
        layer._register_load_state_dict_pre_hook(_from_plain_names)
        layer.train(encoder.training)
    for (block, name, _), twin in zip(exchanged, adapted.values(), strict=True):
        setattr(block, name, twin)
    return exchanged


def lora_deltas(encoder: nn.Module) -> list[Tensor]:
    """Return what LoRA adds to the fused weight of each attention, (3 * dim, dim), in the order of ``attentions``."""
    found = []
    for _, attention in attentions(encoder):
        layer: Any = attention.qkv
        if isinstance(layer, SplitQkv):
            parts = [
                part.get_delta_weight(ADAPTER) if hasattr(part, "lora_A") else torch.zeros_like(part.weight)
                for part in layer.parts
            ]
            found.append(layer.join(parts).detach())
        else:
            found.append(layer.get_delta_weight(ADAPTER).detach())
    return found


def _to_plain_names(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for inside, outside in _NAMES:
        _rename(state, prefix + inside, prefix + outside)


def _from_plain_names(state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for name in ("weight", "bias"):
        if prefix + name in state:
            state[f"{prefix}base_layer.{name}"] = state.pop(prefix + name)
    for inside, outside in _NAMES[1:]:
        _rename(state, prefix + outside, prefix + inside)


def _rename(state: dict[str, Tensor], old: str, new: str) -> None:
    for name in [name for name in state if name.startswith(old)]:
        # Names that are peft's already stay.
        if not (len(new) > len(old) and name.startswith(new)):
            state[new + name[len(old) :]] = state.pop(name)
