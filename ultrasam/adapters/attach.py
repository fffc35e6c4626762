"""Putting an adapter on a network and taking it off again; what of the network it trains."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ultrasam.adapters import lora, med_sa, samus
from ultrasam.adapters.options import AdapterOptions, LoraOptions, MedSaOptions, SamusOptions, read_options
from ultrasam.errors import ConfigError
from ultrasam.modeling.sam import Preprocessing, Sam

_OWN = {
    "lora": re.compile(r"\.lora_[AB]\.weight$"),
    "med_sa": re.compile(r"\.(?:space|mlp)_adapter\."),
    "samus": re.compile(r"\.(?:cnn_embed|post_pos_embed)\.|_Adapter\."),
}


@dataclass
class Attached:
    """An adapter on a network.

    Attributes:
        method: "lora", "med_sa" or "samus".
        options: as it was made.
        modules: new modules, all of which trains.
        tensors: parameters of SAM's modules that train with them.
        exchanged: (parent, name, module before), in the order of the exchange.
        values: attributes and tensors of the network before, to be put back.
    """

    method: str
    options: AdapterOptions
    modules: list[nn.Module] = field(default_factory=list)
    tensors: list[nn.Parameter] = field(default_factory=list)
    exchanged: list[tuple[nn.Module, str, nn.Module]] = field(default_factory=list)
    values: list[tuple[Any, str, Any]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)


def attached(sam: nn.Module) -> Attached | None:
    """Return the adapter on a network, or None."""
    return vars(sam).get("adapter")


def attach(sam: Sam, method: str, options: AdapterOptions | Mapping[str, Any] | None = None) -> Attached:
    """Put a new adapter on a plain network, whose weights stay the same objects.

    Args:
        sam: the network; one adapter at a time.
        method: "lora", "med_sa" or "samus".
        options: of the method, or plain values of them.

    Raises:
        ConfigError: there is one already, or the method does not fit this encoder.
    """
    if attached(sam) is not None:
        raise ConfigError(f"the network has an adapter already ({attached(sam).method}); detach it first")  # type: ignore[union-attr]
    if options is None or isinstance(options, Mapping):
        options = read_options(method, options)
    record = Attached(method, options)
    record.values.append((sam, "preprocessing", sam.preprocessing))
    encoder = sam.image_encoder
    training = sam.training
    if isinstance(options, LoraOptions):
        record.exchanged = lora.add_lora(encoder, options)
        record.modules = list(lora.lora_layers(encoder))
    elif isinstance(options, MedSaOptions):
        record.exchanged = med_sa.add_med_sa(encoder, options)
        record.modules = med_sa.adapter_modules(encoder)
    else:
        _attach_samus(sam, options, record)
    if not record.exchanged:
        raise ConfigError(f"{method} found no attention in the encoder {type(encoder).__name__}; use another method")
    for module in record.modules:
        module.train(training)
    vars(sam)["adapter"] = record
    return record


def detach(sam: Sam) -> None:
    """Take the adapter off: modules, preprocessing and values as before it. Nothing happens where there is none."""
    record = attached(sam)
    if record is None:
        return
    for parent, name, before in reversed(record.exchanged):
        if isinstance(before, lora.EncoderAttention | lora.WindowAttention):
            _take_back(before, getattr(parent, name))
        setattr(parent, name, before)
    for owner, name, value in reversed(record.values):
        setattr(owner, name, value)
    del vars(sam)["adapter"]
    # The network may have moved while parts of it were not in it.
    sam.to(sam.mask_decoder.iou_token.weight.device)
    if record.weights:
        with torch.no_grad():
            sam.load_state_dict(record.weights, strict=False)


def adapter_names(sam: nn.Module) -> list[str]:
    """Return the names, in the state dict, of what an adapter's file holds: all that trains with it."""
    record = attached(sam)
    if record is None:
        return []
    pattern, parts = _OWN[record.method], tuple(f"{part}." for part in record.options.also_train)
    tables = _global_tables(sam) if record.method == "samus" else set()
    return [
        name
        for name in sam.state_dict()
        if (name.startswith("image_encoder.") and pattern.search(name)) or name in tables or name.startswith(parts)
    ]


def merge(sam: Sam) -> None:
    """Fold LoRA into the plain weights: the network has no adapter afterwards and gives the same, to rounding.

    Raises:
        ConfigError: there is no LoRA on it.
    """
    record = attached(sam)
    if record is None or record.method != "lora":
        found = "no adapter" if record is None else record.method
        raise ConfigError(
            f"only LoRA can be folded into the weights, this network has {found}; keep the adapter's file"
        )
    deltas = lora.lora_deltas(sam.image_encoder)
    preprocessing = sam.preprocessing
    record.weights = {}
    detach(sam)
    sam.preprocessing = preprocessing
    with torch.no_grad():
        for (_, attention), delta in zip(lora.attentions(sam.image_encoder), deltas, strict=True):
            attention.qkv.weight += delta


def trained_modules(sam: nn.Module) -> list[nn.Module]:
    """Return the adapter's modules and the parts of SAM that train beside it."""
    record = attached(sam)
    if record is None:
        return []
    return [*record.modules, *(getattr(sam, part) for part in record.options.also_train)]


def set_trainable(sam: nn.Module) -> None:
    """Let the adapter of a network train, and nothing else of it."""
    record = attached(sam)
    sam.requires_grad_(False)
    if record is None:
        return
    for part in record.options.also_train:
        getattr(sam, part).requires_grad_(True)
    for tensor in record.tensors:
        tensor.requires_grad_(True)
    for module in record.modules:
        for name, parameter in module.named_parameters():
            # peft's modules hold the base layer too.
            parameter.requires_grad_(record.method != "lora" or name.startswith("lora_"))


def _attach_samus(sam: Sam, options: SamusOptions, record: Attached) -> None:
    encoder = sam.image_encoder
    twin = samus.samus_encoder(encoder, options)
    prompts = sam.prompt_encoder
    for name in ("image_size", "embedding_size"):
        record.values.append((prompts, name, getattr(prompts, name)))
    prompts.image_size = options.image_size
    prompts.embedding_size = options.image_size // samus.STRIDE
    fields = {**samus.PIXELS, **options.preprocessing, "square": options.image_size}
    try:
        sam.preprocessing = replace(sam.preprocessing, **fields)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the adapter's preprocessing does not fit ({error}); correct its fields") from error
    sam.image_encoder = twin
    record.exchanged.append((sam, "image_encoder", encoder))
    record.modules, record.tensors = samus.trained_parts(twin)


def _global_tables(sam: nn.Module) -> set[str]:
    encoder: Any = sam.image_encoder
    return {
        f"image_encoder.blocks.{index}.attn.rel_pos_{axis}"
        for index, block in enumerate(encoder.blocks)
        if isinstance(block, samus.SamusBlock)
        for axis in "hw"
    }


def _take_back(before: nn.Module, twin: nn.Module) -> None:
    """Give an attention what its twin holds in other tensors: split projections, moved buffers."""
    split: Any = twin.qkv
    if isinstance(split, lora.SplitQkv):
        plain: Any = before.qkv
        with torch.no_grad():
            plain.weight.data = split.weight.detach()
            plain.bias.data = split.bias.detach()
    before._buffers.update(twin._buffers)
    before.train(twin.training)


def pixels_of(values: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing that a card holds."""
    plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return Preprocessing(**plain)
