"""What every backbone is for the downstream tasks: feature maps, tokens, pixels, freezing, depths."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ultrasam.errors import ConfigError
from ultrasam.modeling.sam import Preprocessing
from ultrasam.models.embedding_cache import EmbeddingCache

logger = logging.getLogger(__name__)

KINDS = ("maps", "tokens")


class Backbone(nn.Module, ABC):
    """Encoder of the downstream tasks (paper section 2.5.2).

    Subclasses set ``out_channels``, ``strides``, ``token_channels`` and ``layers``, and call ``settle`` when built.

    Args:
        preprocessing: what the weights expect of pixels; ``preprocessing.square`` is the side of the input.
        frozen: nothing trains, no graph is kept, normalisation statistics stay.
        cache_dir: keep what a frozen backbone gives for an image in this folder; None keeps nothing.
        cache_bytes: bound of that folder.

    Attributes:
        out_channels: channels of each feature map, in the order of ``forward``.
        strides: input pixels a cell of each feature map, rounded to a power of two.
        token_channels: C of the tokens.
        layers: number of depths that ``layer_of`` tells apart.

    Raises:
        ConfigError: a cache without freezing.
    """

    out_channels: tuple[int, ...]
    strides: tuple[int, ...]
    token_channels: int
    layers: int

    def __init__(
        self,
        preprocessing: Preprocessing,
        frozen: bool = False,
        cache_dir: str | None = None,
        cache_bytes: int = 20 * 2**30,
    ) -> None:
        super().__init__()
        if cache_dir is not None and not frozen:
            raise ConfigError("cache_dir keeps features of a frozen backbone; set frozen=True or remove cache_dir")
        self.preprocessing = preprocessing
        self.frozen = frozen
        self.cache_dir = cache_dir
        self.cache_bytes = cache_bytes
        self.caches: dict[str, EmbeddingCache] = {}
        self.known_shapes: dict[str, list[tuple[int, ...]]] = {}

    def settle(self, weights: str | None) -> None:
        """Freeze what is frozen; the last step of a subclass's constructor, with the weights it was given."""
        if weights is None:
            logger.warning(
                "%s has random weights unless a checkpoint is loaded; set its option weights to start from a file",
                type(self).__name__,
            )
        if self.frozen:
            self.requires_grad_(False)
        self.train(self.training)
        self.register_load_state_dict_post_hook(self.forget_caches)

    def forget_caches(self, *_: Any) -> None:
        """Drop the caches, whose keys hold the weights, when other weights are loaded."""
        self.caches.clear()

    def train(self, mode: bool = True) -> Backbone:
        """Set the training mode; a frozen backbone stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self

    @abstractmethod
    def encode(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the feature maps, (B, C, h, w) each, and the tokens (B, T, C) of normalised (B, 3, S, S)."""

    @abstractmethod
    def layer_of(self, name: str) -> int:
        """Return the depth of a parameter of this module by its name: 0 for the patches, ``layers - 1`` the last."""

    def describe(self) -> dict[str, Any]:
        """Return what a checkpoint's card says of the backbone."""
        return {
            "type": type(self).__name__,
            "preprocessing": self.preprocessing.to_dict(),
            "frozen": self.frozen,
            "parameters": sum(parameter.numel() for parameter in self.parameters()),
        }

    def prepare(self, images: Sequence[Tensor]) -> Tensor:
        """Normalise resized images, (3, h, w) uint8 RGB each, and pad them to (B, 3, S, S) float32."""
        return self.preprocessing.batch(list(images))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the feature maps of normalised images (B, 3, S, S), (B, C, h, w) each."""
        self.check_size(images)
        with self.graph():
            return tuple(self.encode(images)[0])

    def tokens(self, images: Tensor) -> Tensor:
        """Return the output tokens (B, T, C) of normalised images (B, 3, S, S), class tokens left out."""
        self.check_size(images)
        with self.graph():
            return self.encode(images)[1]

    def extract(self, images: Sequence[Tensor], kind: str = "maps") -> tuple[Tensor, ...]:
        """Return the feature maps or the tokens of resized images, from the cache where there is one.

        With a cache, images are encoded one at a time in float32 and rounded to half precision, whether they were
        kept already or not, so that the cache changes nothing.

        Args:
            images: (3, h, w) uint8 RGB each.
            kind: "maps" for what ``forward`` gives, "tokens" for a tuple of what ``tokens`` gives.
        """
        if kind not in KINDS:
            raise ConfigError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
        if self.cache_dir is not None:
            parts = [self._cached(image, kind) for image in images]
            return tuple(torch.stack(column) for column in zip(*parts, strict=True))
        square = self.prepare(images)
        return self(square) if kind == "maps" else (self.tokens(square),)

    def _cached(self, image: Tensor, kind: str) -> list[Tensor]:
        """Return the maps (C, h, w) or [tokens (T, C)] of one image, rounded to half precision."""
        if kind not in self.caches:
            folder = Path(str(self.cache_dir)) / f"{type(self).__name__}_{kind}_{self.cache_name()}"
            self.caches[kind] = EmbeddingCache(folder, self, self.preprocessing, self.cache_bytes)
        cache = self.caches[kind]
        found = cache.get(image)
        if found is None:
            with torch.autocast(image.device.type, enabled=False), torch.no_grad():
                maps, tokens = self.encode(self.prepare([image]))
            parts = [part[0] for part in (maps if kind == "maps" else [tokens])]
            # Maps of one size lie in one file as they are, others one after another.
            found = torch.cat([part.flatten() for part in parts]).half().cpu()
            cache.put(image, found)
        shapes = self.shapes(kind)
        sizes = [int(torch.Size(shape).numel()) for shape in shapes]
        parts = found.to(image.device, torch.float32).split(sizes)
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]

    def cache_name(self) -> str:
        """Return what, besides weights and pixels, the features depend on."""
        return "all"

    def shapes(self, kind: str) -> list[tuple[int, ...]]:
        """Return the shapes for one image of the feature maps, or of the tokens."""
        if kind not in self.known_shapes:
            side, device = self.preprocessing.square, next(self.parameters()).device
            with torch.no_grad():
                maps, tokens = self.encode(torch.zeros(1, 3, side, side, device=device))
            self.known_shapes["maps"] = [tuple(part.shape[1:]) for part in maps]
            self.known_shapes["tokens"] = [tuple(tokens.shape[1:])]
        return self.known_shapes[kind]

    def graph(self) -> AbstractContextManager[Any]:
        """Return the context of a pass: without a graph where the backbone is frozen."""
        return torch.no_grad() if self.frozen else nullcontext()

    def check_size(self, images: Tensor) -> None:
        """Refuse anything but (B, 3, S, S).

        Raises:
            ConfigError: of another shape.
        """
        side = self.preprocessing.square
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, side, side):
            raise ConfigError(
                f"{type(self).__name__} takes images of (B, 3, {side}, {side}), got {tuple(images.shape)}; "
                "set its image_size or the pipeline's square"
            )


def pixels(image_size: int, changes: dict[str, Any] | None, **defaults: Any) -> Preprocessing:
    """Return a preprocessing from an architecture's values and a configuration's.

    Args:
        image_size: side of the square in pixels.
        changes: fields of ``Preprocessing`` from the configuration, or None.
        **defaults: fields of ``Preprocessing`` of the architecture.

    Raises:
        ConfigError: a field or value that does not exist.
    """
    try:
        found = replace(Preprocessing(**{**defaults, "square": image_size}), **(changes or {}))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the backbone's preprocessing cannot be used: {error}; correct its fields") from error
    if found.square != image_size:
        raise ConfigError(f"preprocessing.square is {found.square}, image_size is {image_size}; give image_size only")
    return found


def require_multiple(image_size: int, patch: int, what: str) -> None:
    """Refuse an image size that patches do not fill.

    Raises:
        ConfigError: names the nearest sizes.
    """
    if image_size < patch or image_size % patch:
        low = max(image_size // patch, 1) * patch
        raise ConfigError(
            f"{what} needs an image_size that is a multiple of {patch}, got {image_size}; use {low} or {low + patch}"
        )


def even_taps(depth: int) -> tuple[int, ...]:
    """Return the last block of each quarter of a network, as 2, 5, 8, 11 of 12 (fewer blocks: the last repeats)."""
    return tuple(max(depth * quarter // 4 - 1, 0) for quarter in (1, 2, 3, 4))


def check_taps(taps: Sequence[int], depth: int, what: str) -> tuple[int, ...]:
    """Return taps as a tuple.

    Raises:
        ConfigError: no taps, or one that is no block.
    """
    wrong = [tap for tap in taps if not 0 <= tap < depth]
    if wrong or not taps or list(taps) != sorted(taps):
        raise ConfigError(f"taps of {what} must be blocks 0 to {depth - 1} in ascending order, got {list(taps)}")
    return tuple(taps)
