"""An encoder whose first stages are frozen, with what they give kept on disk."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ultrasam.errors import ConfigError
from ultrasam.modeling.image_encoder import ImageEncoder
from ultrasam.modeling.sam import Preprocessing
from ultrasam.modeling.tiny_vit import TinyViT
from ultrasam.models.embedding_cache import EmbeddingCache


class StagedEncoder:
    """Run a SAM-type encoder of which only the last stages train.

    What the frozen stages give is rounded to half precision, whether it is cached or not, and made one image at a
    time, so that neither the cache nor the batch changes a result. No graph is kept of them.

    Args:
        encoder: ``ImageEncoder`` or ``TinyViT``.
        preprocessing: of its weights.
        trained: how many of the last stages train; None for all, without rounding and cache.
        cache_dir: folder for what the frozen stages give; None keeps nothing.
        cache_bytes: bound of that folder.
        neck: run the neck, the last stage, and count it among the stages.

    Raises:
        ConfigError: a number of stages that the encoder does not have, or a cache where nothing is frozen.
    """

    def __init__(
        self,
        encoder: ImageEncoder | TinyViT,
        preprocessing: Preprocessing,
        trained: int | None,
        cache_dir: str | None = None,
        cache_bytes: int = 20 * 2**30,
        neck: bool = True,
    ) -> None:
        self.encoder = encoder
        self.preprocessing = preprocessing
        self.stop = len(encoder.stages()) - (not neck)
        if trained is not None and not 0 <= trained <= self.stop:
            raise ConfigError(f"the encoder has {self.stop} stages, so 0 to {self.stop} of them train, got {trained}")
        self.frozen = 0 if trained is None else self.stop - trained
        if cache_dir is not None and not self.frozen:
            raise ConfigError(
                f"cache_dir={cache_dir!r} keeps what frozen stages give, but all stages train; freeze some or remove it"
            )
        self.cache_dir = cache_dir
        self.cache_bytes = cache_bytes
        self.cache: EmbeddingCache | None = None

    def trained_parts(self) -> list[nn.Module]:
        """Return the stages that train."""
        return self.encoder.stages()[self.frozen : self.stop]

    def freeze(self) -> None:
        """Take gradients from all but the trained stages."""
        self.encoder.requires_grad_(False)
        for part in self.trained_parts():
            part.requires_grad_(True)
        table = getattr(self.encoder, "pos_embed", None)
        if isinstance(table, nn.Parameter) and not self.frozen:
            table.requires_grad_(True)

    def forget(self) -> None:
        """Drop the cache, whose key holds the weights, when other weights are loaded."""
        self.cache = None

    def __call__(self, images: Sequence[Tensor]) -> Tensor:
        """Encode resized images, (3, h, w) uint8 RGB each."""
        if not self.frozen:
            return self.encoder.run(self.preprocessing.batch(list(images)), 0, self.stop)
        with torch.no_grad():
            features = torch.cat([self.frozen_features(image) for image in images])
            if self.frozen == self.stop:
                return features
        return self.encoder.run(features, self.frozen, self.stop)

    def frozen_features(self, image: Tensor) -> Tensor:
        """Pass one image (3, h, w) through the frozen stages: (1, ...) float32 of half precision."""
        if self.cache_dir is not None and self.cache is None:
            later = self.encoder.stages()[self.frozen :]
            self.cache = EmbeddingCache(self.cache_dir, self.encoder, self.preprocessing, self.cache_bytes, later)
        found = None if self.cache is None else self.cache.get(image)
        if found is None:
            with torch.autocast(image.device.type, enabled=False):
                found = self.encoder.run(self.preprocessing.batch([image]), 0, self.frozen)[0].half()
            if self.cache is not None:
                self.cache.put(image, found)
        return found.to(image.device, torch.float32)[None]
