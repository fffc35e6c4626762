"""The methods and their options, as a configuration names them and a file's card repeats them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ultrasam.errors import ConfigError

PARTS = ("image_encoder", "prompt_encoder", "mask_decoder")
BESIDE = ("prompt_encoder", "mask_decoder")


@dataclass(frozen=True)
class LoraOptions:
    """LoRA on the attention of the image encoder (Hu et al. 2021); the defaults are those of the UltraSam paper.

    Attributes:
        rank: columns of the low-rank product.
        alpha: the product is multiplied by ``alpha / rank``.
        dropout: of the product's input while training.
        targets: "qkv", one product for each fused projection (UltraSam), or "qv", one for the queries and one for the
            values (SAMed; there alpha equals the rank and dropout is 0).
        also_train: parts of SAM that train beside the adapter: "prompt_encoder", "mask_decoder". UltraSam: none.
    """

    rank: int = 16
    alpha: float = 16.0
    dropout: float = 0.1
    targets: str = "qkv"
    also_train: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(self.rank >= 1, "rank", self.rank, "a number of at least 1")
        _require(self.alpha > 0, "alpha", self.alpha, "a positive number")
        _require(0 <= self.dropout < 1, "dropout", self.dropout, "a probability below 1")
        _require(self.targets in ("qkv", "qv"), "targets", self.targets, "'qkv' or 'qv'")
        _require_parts(self.also_train)


@dataclass(frozen=True)
class MedSaOptions:
    """Medical SAM Adapter (Wu et al. 2025); the defaults are those of the UltraSam paper.

    Attributes:
        ratio: width of the bottleneck over that of the block.
        scale: of the adapter beside the MLP.
        init: "zero" starts the last layer of each adapter at zero, so that the network starts as SAM; "default" draws
            it as PyTorch does, as the published code did.
        padding: "normalised" pads windows with zeros after the block's normalisation, as SAM and UltraSam do;
            "raw" pads before it, as the published code does, where zeros become the normalisation's bias.
        also_train: as for LoRA. The published code trains the mask decoder, UltraSam does not.
    """

    ratio: float = 0.25
    scale: float = 0.5
    init: str = "zero"
    padding: str = "normalised"
    also_train: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(0 < self.ratio <= 4, "ratio", self.ratio, "a number above 0 and up to 4")
        _require(self.init in ("zero", "default"), "init", self.init, "'zero' or 'default'")
        _require(self.padding in ("normalised", "raw"), "padding", self.padding, "'normalised' or 'raw'")
        _require_parts(self.also_train)


@dataclass(frozen=True)
class SamusOptions:
    """SAMUS (Lin et al. 2023); the defaults are those of the published code.

    Attributes:
        image_size: side of the square in pixels; a cell of the embedding has 8.
        ratio: width of the adapters' bottlenecks over that of the blocks.
        scale: of the adapter beside the MLP, and of the convolutional branch that is added at the end.
        cnn_widths: channels of the convolutional branch before its last layer, which has the blocks' width.
        gray: make the image grey and repeat it three times.
        preprocessing: fields of ``Preprocessing`` other than SAMUS's own (both sides squashed, 0 to 1).
        also_train: as for LoRA; published: none.
    """

    image_size: int = 256
    ratio: float = 0.25
    scale: float = 0.5
    cnn_widths: tuple[int, ...] = (64, 128, 256)
    gray: bool = True
    preprocessing: dict[str, Any] = field(default_factory=dict)
    also_train: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        good = self.image_size >= 16 and self.image_size % 8 == 0
        _require(good, "image_size", self.image_size, "a multiple of 8 of at least 16")
        _require(0 < self.ratio <= 4, "ratio", self.ratio, "a number above 0 and up to 4")
        # Three halvings bring the branch to the eighth of the image that the tokens have.
        good = len(self.cnn_widths) == 3 and all(width >= 1 for width in self.cnn_widths)
        _require(good, "cnn_widths", self.cnn_widths, "three positive numbers")
        _require_parts(self.also_train)


AdapterOptions = LoraOptions | MedSaOptions | SamusOptions
ADAPTERS: dict[str, type[LoraOptions] | type[MedSaOptions] | type[SamusOptions]] = {
    "lora": LoraOptions,
    "med_sa": MedSaOptions,
    "samus": SamusOptions,
}


def read_options(method: str, values: Mapping[str, Any] | None = None) -> AdapterOptions:
    """Return the options of a method from plain values.

    Raises:
        ConfigError: an unknown method or option, or a value that does not fit.
    """
    kind = ADAPTERS.get(method)
    if kind is None:
        raise ConfigError(f"there is no adapter {method!r}; known are {', '.join(ADAPTERS)}")
    known = [entry.name for entry in fields(kind)]
    unknown = [name for name in values or {} if name not in known]
    if unknown:
        raise ConfigError(f"the adapter {method!r} has no option {unknown[0]!r}; it has {', '.join(known)}")
    plain: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in (values or {}).items()
    }
    try:
        return kind(**plain)
    except TypeError as error:
        raise ConfigError(f"an option of the adapter {method!r} is of the wrong type ({error}); correct it") from error


def plain_options(options: AdapterOptions) -> dict[str, Any]:
    """Return options as values that JSON keeps: ``read_options`` gives them back."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(options).items()}


def _require(condition: bool, name: str, value: object, wanted: str) -> None:
    if not condition:
        raise ConfigError(f"the adapter's option {name} is {value!r}, expected {wanted}")


def _require_parts(parts: tuple[str, ...]) -> None:
    good = not isinstance(parts, str) and all(part in BESIDE for part in parts)
    _require(good, "also_train", parts, f"a list of {' and '.join(map(repr, BESIDE))}")
