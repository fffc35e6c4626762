"""What a configuration must know of the weights that a fine-tuning starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrasam.checkpoints import read_weights, resolve_weights
from ultrasam.errors import CheckpointError
from ultrasam.modeling.build import ARCHITECTURES


@dataclass(frozen=True)
class Base:
    """Weights to start from.

    Attributes:
        weights: as a configuration names them: a known name, or an absolute path.
        arch: architecture.
        image_size: side of their square in pixels.
        preprocessing: fields of ``Preprocessing`` without the square.
        passes: the decoder's passes that they were trained for, or those of UltraSam.
        boxes_only: they never saw points.
        untrained_multi: their mask outputs 1 to 3 were never trained.
    """

    weights: str
    arch: str
    image_size: int
    preprocessing: dict[str, Any]
    passes: tuple[str, ...]
    boxes_only: bool
    untrained_multi: bool

    @property
    def is_vit(self) -> bool:
        """Whether the encoder is SAM's ViT."""
        return ARCHITECTURES[self.arch].encoder == "vit"


def read_base(weights: str | Path) -> Base:
    """Read what a weight file says of itself.

    Args:
        weights: a file or a known name.

    Raises:
        CheckpointError: it cannot be read, or no network here is made of it.
    """
    path = resolve_weights(weights)
    found = read_weights(path)
    if found.arch.name is None:
        raise CheckpointError(f"{path} is {found.arch}, which no architecture here is; use other weights")
    card = found.card or {}
    if card.get("adapter"):
        raise CheckpointError(f"{path} holds an adapter already; start from its base, or merge a LoRA first")
    pixels = card.get("preprocessing")
    fields = dict(pixels) if isinstance(pixels, Mapping) else {}
    square = fields.pop("square", None)
    vit = ARCHITECTURES[found.arch.name].encoder == "vit"
    size = found.arch.image_size if vit or not square else int(square)
    training = card.get("training")
    prompts = training.get("prompts") if isinstance(training, Mapping) else None
    passes = tuple(str(name) for name in card.get("passes") or ("single", "multi"))
    named = str(weights) if not Path(weights).expanduser().exists() else str(path.resolve())
    return Base(
        weights=named,
        arch=found.arch.name,
        image_size=size,
        preprocessing=fields,
        passes=passes,
        boxes_only=prompts == ["box"],
        untrained_multi=card.get("name") == "litemedsam",
    )
