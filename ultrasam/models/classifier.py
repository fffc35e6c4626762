"""Image classification (paper section 2.5.2): the mean of a backbone's output tokens and one linear layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ultrasam.errors import ConfigError
from ultrasam.models.backbones.base import Backbone
from ultrasam.models.backbones.sam import SamBackbone
from ultrasam.models.class_weights import ClassLoss, check_classes
from ultrasam.models.classifier_stages import StagedEncoder
from ultrasam.models.embedding_cache import EmbeddingCache
from ultrasam.models.sample_checks import check_transforms

# Of vectors, which are small; the folder of maps has another bound.
VECTOR_BYTES = 2**30


class PooledModel(BaseModel):
    """A backbone whose output tokens are averaged: the first half of a classifier and of a regressor.

    Args:
        backbone: config of a ``Backbone``; what its ``frozen`` says holds for the whole of it.
        trained_stages: how many of the last stages of a SAM-type backbone train, the others being frozen; None
            leaves it to the backbone.
        adapter: values of ``ultrasam.adapters.options.LoraOptions`` with ``method="lora"``: a SAM-type backbone is
            frozen but for its adapter. None for no adapter.
        cache_dir: keep what frozen parts give for an image in this folder; None keeps nothing.
        cache_bytes: bound of that folder.
        data_preprocessor: config of ``SamDataPreprocessor``.
        init_cfg: for MMEngine, unused.

    Raises:
        ConfigError: values that contradict each other or do not fit the backbone.
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        trained_stages: int | None = None,
        adapter: dict[str, Any] | None = None,
        cache_dir: str | None = None,
        cache_bytes: int = 20 * 2**30,
        data_preprocessor: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        preprocessor = data_preprocessor or dict(type="mmdet.SamDataPreprocessor")
        super().__init__(data_preprocessor=preprocessor, init_cfg=init_cfg)
        self.backbone: Backbone = MODELS.build(backbone)
        self.cache_dir = cache_dir
        self.cache: EmbeddingCache | None = None
        self.staged: StagedEncoder | None = None
        self.adapter = dict(adapter) if adapter else None
        frozen = self.backbone.frozen
        if sum((bool(frozen), trained_stages is not None, self.adapter is not None)) > 1:
            raise ConfigError(
                f"the backbone is frozen ({frozen}), has trained_stages ({trained_stages}) or an adapter "
                f"({self.adapter is not None}): choose one of them"
            )
        if trained_stages is not None:
            backbone_sam = self.sam_type("trained_stages")
            neck = not backbone_sam.taps
            self.staged = StagedEncoder(
                backbone_sam.encoder, self.backbone.preprocessing, trained_stages, cache_dir, cache_bytes, neck
            )
            self.staged.freeze()
        elif self.adapter is not None:
            self.add_adapter(self.adapter)
        if cache_dir is not None and not (frozen or self.staged):
            raise ConfigError("cache_dir keeps what frozen parts give; freeze the backbone or remove cache_dir")
        self.backbone.register_load_state_dict_post_hook(self.forget_caches)
        self.train(self.training)

    def sam_type(self, option: str) -> SamBackbone:
        """Return the backbone where it is SAM's.

        Raises:
            ConfigError: it is another one, which has no such option.
        """
        if not isinstance(self.backbone, SamBackbone):
            raise ConfigError(f"{option} is for SamBackbone, not for {type(self.backbone).__name__}; remove it")
        return self.backbone

    def add_adapter(self, values: Mapping[str, Any]) -> None:
        """Put LoRA on the encoder and freeze all else of it.

        Raises:
            ConfigError: another method, or values that it does not have.
        """
        from ultrasam.adapters.lora import add_lora
        from ultrasam.adapters.options import LoraOptions, read_options

        options = read_options(
            str(values.get("method")), {name: value for name, value in values.items() if name != "method"}
        )
        if not isinstance(options, LoraOptions) or options.also_train:
            raise ConfigError(f"adapter of this model must be method='lora' without also_train, got {dict(values)}")
        encoder = self.sam_type("adapter").encoder
        add_lora(encoder, options)
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_("lora_" in name)

    def forget_caches(self, *_: Any) -> None:
        """Drop the caches, whose keys hold the weights, when other weights are loaded."""
        self.cache = None
        if self.staged is not None:
            self.staged.forget()

    def train(self, mode: bool = True) -> PooledModel:
        """Set the training mode; a partly frozen encoder keeps its normalisation statistics."""
        super().train(mode)
        if self.staged is not None:
            self.backbone.eval()
        return self

    def pooled(self, images: Sequence[Tensor]) -> Tensor:
        """Return the mean of the output tokens of resized images, (3, h, w) uint8 RGB each: (B, C) float32."""
        if self.staged is not None:
            found = self.staged(images)
            # The TinyViT's map has its channels first, the ViT's last.
            return (found.flatten(2).mean(2) if self.staged_channels_first() else found.flatten(1, 2).mean(1)).float()
        if not self.backbone.frozen:
            return self.backbone.extract(images, "tokens")[0].mean(dim=1).float()
        with torch.no_grad():
            return torch.stack([self.frozen_vector(image) for image in images])

    def staged_channels_first(self) -> bool:
        """Tell whether the staged encoder's last map is (B, C, h, w)."""
        assert isinstance(self.backbone, SamBackbone)
        return not self.backbone.taps

    def frozen_vector(self, image: Tensor) -> Tensor:
        """Return the mean token (C,) of one image from a frozen backbone, rounded to half precision."""
        if self.cache_dir is not None and self.cache is None:
            folder = Path(self.cache_dir) / f"{type(self.backbone).__name__}_vectors"
            self.cache = EmbeddingCache(folder, self.backbone, self.backbone.preprocessing, VECTOR_BYTES)
        found = None if self.cache is None else self.cache.get(image)
        if found is None:
            with torch.autocast(image.device.type, enabled=False):
                found = self.backbone.extract([image], "tokens")[0][0].float().mean(dim=0).half()
            if self.cache is not None:
                self.cache.put(image, found)
        return found.to(image.device, torch.float32)

    def card(self) -> dict[str, Any]:
        """Return what a checkpoint must say of the backbone."""
        about = self.backbone.describe()
        if self.staged is not None:
            about["trained_stages"] = len(self.staged.trained_parts())
        return {"backbone": about, "adapter": self.adapter, "preprocessing": about["preprocessing"]}

    def forward(self, inputs: Sequence[Tensor], data_samples: Sequence[Any] | None = None, mode: str = "tensor") -> Any:
        """Return losses ("loss"), samples with predictions ("predict"), or the head's raw output ("tensor").

        Args:
            inputs: resized images, (3, h, w) uint8 RGB each.
            data_samples: of those images.
            mode: what to return.
        """
        if mode == "tensor" or data_samples is None:
            return self.raw(inputs)
        check_transforms(data_samples, self.backbone.preprocessing)
        if mode == "loss":
            return self.loss(inputs, data_samples)
        with torch.no_grad():
            return self.predict(inputs, data_samples)

    def raw(self, images: Sequence[Tensor]) -> Tensor:
        """Return the head's output for resized images."""
        raise NotImplementedError

    def loss(self, images: Sequence[Tensor], samples: Sequence[Any]) -> dict[str, Tensor]:
        """Return the losses by name."""
        raise NotImplementedError

    def predict(self, images: Sequence[Tensor], samples: Sequence[Any]) -> list[Any]:
        """Add ``pred_instances`` to the samples."""
        raise NotImplementedError


@MODELS.register_module()
class ImageClassifier(PooledModel):
    """One class for each image.

    Args:
        backbone: see ``PooledModel``.
        classes: names in the order of the labels, which must be those of the data.
        class_loss: arguments of ``ClassLoss``.
        dropout: of the mean token while training.
        trained_stages: see ``PooledModel``, as the following.
        adapter: likewise.
        cache_dir: likewise.
        cache_bytes: likewise.
        data_preprocessor: likewise.
        init_cfg: likewise.
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        classes: Sequence[str],
        class_loss: dict[str, Any] | None = None,
        dropout: float = 0.0,
        trained_stages: int | None = None,
        adapter: dict[str, Any] | None = None,
        cache_dir: str | None = None,
        cache_bytes: int = 20 * 2**30,
        data_preprocessor: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(backbone, trained_stages, adapter, cache_dir, cache_bytes, data_preprocessor, init_cfg)
        self.classes = named_classes(classes)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.backbone.token_channels, len(self.classes))
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.class_loss = ClassLoss(len(self.classes), **(class_loss or {}))

    def learn_from(self, dataset: Any) -> None:
        """Take the class counts of the training data.

        Raises:
            ConfigError: its classes are not those of the model.
        """
        check_classes(dataset.metainfo["classes"], self.classes, "the training data")
        self.class_loss.learn_counts(dataset.class_counts())

    def card(self) -> dict[str, Any]:
        """Return what a checkpoint must say of the network."""
        return {"task": "classify", "classes": list(self.classes), **super().card()}

    def raw(self, images: Sequence[Tensor]) -> Tensor:
        """Return scores before softmax (B, K) of resized images, (3, h, w) uint8 RGB each."""
        return self.head(self.dropout(self.pooled(images)))

    def loss(self, images: Sequence[Tensor], samples: Sequence[Any]) -> dict[str, Tensor]:
        """Return ``loss_class``; ``samples`` have ``gt_instances.labels`` (1,)."""
        scores = self.raw(images)
        labels = torch.cat([sample.gt_instances.labels for sample in samples]).to(scores.device)
        return {"loss_class": self.class_loss(scores, labels)}

    def predict(self, images: Sequence[Tensor], samples: Sequence[Any]) -> list[Any]:
        """Add ``pred_instances`` with ``probabilities`` (1, K), ``labels`` (1,) and ``scores`` (1,) to each sample."""
        for sample in samples:
            check_classes(sample.classes, self.classes, sample.img_path)
        add_class_predictions(samples, self.raw(images).float().softmax(dim=1).split(1))
        return list(samples)


def named_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of two or more different classes.

    Raises:
        ConfigError: they are something else.
    """
    if isinstance(classes, str) or len(set(classes)) != len(classes) or len(classes) < 2:
        raise ConfigError(f"classes must be a list of two or more different names, got {classes!r}")
    return tuple(str(name) for name in classes)


def add_class_predictions(samples: Sequence[Any], parts: Sequence[Tensor]) -> None:
    """Give each sample its probabilities (n, K) with the most probable class and its probability."""
    for sample, probabilities in zip(samples, parts, strict=True):
        scores, labels = probabilities.max(dim=1)
        sample.pred_instances = InstanceData(probabilities=probabilities, labels=labels, scores=scores)
