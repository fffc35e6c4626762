"""What of a network trains: one word decides, and the counts say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ultrasam.adapters.options import ADAPTERS, PARTS, AdapterOptions, read_options
from ultrasam.errors import ConfigError

METHODS = ("full", "decoder", *ADAPTERS)


@dataclass(frozen=True)
class Plan:
    """What trains.

    Attributes:
        method: as in ``plan_training``; None where ``freeze`` says it.
        frozen: parts whose own weights stay.
        options: of the adapter, or None.
    """

    method: str | None
    frozen: tuple[str, ...]
    options: AdapterOptions | None

    @property
    def encoder_is_constant(self) -> bool:
        """Whether the whole image encoder stays as it is, so that its pass needs no graph and may be kept."""
        return "image_encoder" in self.frozen and self.options is None


def plan_training(method: str | None, adapter: Mapping[str, Any] | None = None, freeze: Sequence[str] = ()) -> Plan:
    """Decide what trains.

    Args:
        method: "full": everything; "decoder": all but the image encoder; "lora", "med_sa", "samus": this adapter on
            the image encoder, all of SAM frozen but what its option ``also_train`` names. None leaves it to ``freeze``.
        adapter: options of the adapter; see ``ultrasam.adapters.options``.
        freeze: parts that do not train, for ``method`` None.

    Raises:
        ConfigError: an unknown method or option, or settings that contradict each other.
    """
    if method is None:
        if adapter:
            raise ConfigError(f"adapter has options but method is None; set method to one of {', '.join(ADAPTERS)}")
        return Plan(None, tuple(freeze), None)
    if method not in METHODS:
        raise ConfigError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    if freeze:
        raise ConfigError(f"method={method!r} decides what trains and freeze={list(freeze)} too; leave one of them out")
    if method not in ADAPTERS:
        if adapter:
            raise ConfigError(f"method={method!r} has no adapter, but adapter has options; leave adapter out")
        return Plan(method, ("image_encoder",) if method == "decoder" else (), None)
    options = read_options(method, adapter)
    return Plan(method, tuple(part for part in PARTS if part not in options.also_train), options)


def trainable_counts(sam: nn.Module) -> dict[str, int]:
    """Return how many numbers train in each part of a network, in all of it, and how many it has."""
    counts = {part: sum(p.numel() for p in getattr(sam, part).parameters() if p.requires_grad) for part in PARTS}
    total = sum(p.numel() for p in sam.parameters())
    return {**counts, "trained": sum(counts.values()), "all": total}


def trainable_text(sam: nn.Module, method: str | None) -> str:
    """Return what trains, for the log: a line for each part."""
    counts = trainable_counts(sam)
    lines = [f"Trains ({method or 'by freeze'}): {counts['trained']:,} of {counts['all']:,} numbers"]
    lines += [f"  {part:<15} {counts[part]:>13,}" for part in PARTS]
    return "\n".join(lines)
