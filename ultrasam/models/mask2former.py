"""Instance segmentation and detection: Mask2Former (Cheng et al. 2022) on any backbone (paper section 2.5.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor

from ultrasam.errors import ConfigError
from ultrasam.geometry.transform import SquareTransform
from ultrasam.models.backbones.base import Backbone
from ultrasam.models.feature_pyramid import FeaturePyramid
from ultrasam.models.mask2former_head import HeadSizes, build_head, load_decoder
from ultrasam.models.postprocess import box_of_masks
from ultrasam.models.sample_checks import check_transforms

PYRAMIDS = ("taps", "simple", "none")
# Masks enlarged at a time.
CHUNK = 16


@MODELS.register_module()
class Mask2FormerDetector(BaseDetector):
    """Mask2Former: a backbone, its scales, MMDetection's pixel and query decoders.

    Args:
        backbone: config of a ``Backbone``.
        classes: names of the classes in the order of the labels.
        pyramid: how the backbone's maps become four scales. "taps": one tapped block a scale; "simple": all from
            the last map (ViTDet); "none": the maps as they are, for ResNet, and for transformers as the published
            results had it (four maps of stride 16, so masks of a sixteenth of the resolution).
        pyramid_channels: channels of the scales.
        head: fields of ``HeadSizes``.
        decoder_weights: Mask2Former file of MMDetection to start the decoders from; None starts them at random, as
            in the paper.
        max_per_image: detections given for an image at most.
        data_preprocessor: config of ``SamDataPreprocessor``.
        init_cfg: for MMEngine, unused.

    Raises:
        ConfigError: a value that does not exist or does not fit.
        CheckpointError: weights that do not fit.
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        classes: Sequence[str],
        pyramid: str = "taps",
        pyramid_channels: int = 256,
        head: dict[str, Any] | None = None,
        decoder_weights: str | None = None,
        max_per_image: int = 100,
        data_preprocessor: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor or dict(type="mmdet.SamDataPreprocessor"), init_cfg)
        if pyramid not in PYRAMIDS:
            raise ConfigError(f"pyramid must be one of {', '.join(PYRAMIDS)}, got {pyramid!r}")
        if isinstance(classes, str) or not classes or len(set(classes)) != len(classes):
            raise ConfigError(f"classes must be a list of different names, got {classes!r}")
        if max_per_image < 1:
            raise ConfigError(f"max_per_image must be at least 1, got {max_per_image}")
        try:
            sizes = HeadSizes(**(head or {}))
        except TypeError as error:
            raise ConfigError(f"head of Mask2FormerDetector: {error}; its fields are those of HeadSizes") from error
        self.classes = tuple(classes)
        self.pyramid = pyramid
        self.max_per_image = max_per_image
        self.decoder_weights = decoder_weights
        self.backbone: Backbone = MODELS.build(backbone)
        channels, strides = self.backbone.out_channels, self.backbone.strides
        if pyramid != "none":
            source = "last" if pyramid == "simple" else "taps"
            self.neck = FeaturePyramid(channels, strides[-1], source, pyramid_channels)
            channels, strides = self.neck.out_channels, self.neck.strides
        if len(channels) != 4:
            raise ConfigError(
                f"Mask2Former needs four maps, {type(self.backbone).__name__} gives {len(channels)}; "
                "tap four blocks or set pyramid='simple'"
            )
        self.panoptic_head: Any = build_head(channels, strides, len(self.classes), sizes)
        self.started = False

    def init_weights(self) -> None:
        """Start the decoders: at random, or from ``decoder_weights``; the backbone has its weights already."""
        if self.started:
            return
        self.panoptic_head.init_weights()
        if self.decoder_weights is not None:
            load_decoder(self.panoptic_head, self.decoder_weights)
        self.started = True

    def card(self) -> dict[str, Any]:
        """Return what a checkpoint must say of the network."""
        return {
            "architecture": "mask2former",
            "task": "segment",
            "classes": list(self.classes),
            "pyramid": self.pyramid,
            "backbone": self.backbone.describe(),
            "preprocessing": self.backbone.preprocessing.to_dict(),
        }

    def extract_feat(self, batch_inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the four scales, (B, C, h, w) each, of resized images (3, h, w) uint8."""
        maps = self.backbone.extract(batch_inputs)
        return self.neck(maps) if self.with_neck else maps

    def loss(self, batch_inputs: Sequence[Tensor], batch_data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """Return the losses of every layer of the query decoder (class, mask, Dice), matched by the Hungarian method.

        Raises:
            ConfigError: the pipeline prepares images, masks or classes otherwise than the network needs.
        """
        fitted = [sample for sample in batch_data_samples if sample.transform is not None]
        check_transforms(fitted, self.backbone.preprocessing)
        for sample in batch_data_samples:
            self.check_truth(sample)
        features = self.extract_feat(batch_inputs)
        return self.panoptic_head.loss(features, list(batch_data_samples))

    def check_truth(self, sample: Any) -> None:
        """Refuse a training sample whose masks or labels do not fit.

        Raises:
            ConfigError: names the image and what was found.
        """
        side = self.backbone.preprocessing.square
        masks = getattr(sample.gt_instances, "masks", None)
        if masks is None or tuple(masks.shape[1:]) != (side, side):
            found = "none" if masks is None else f"masks of {tuple(masks.shape[1:])}"
            raise ConfigError(
                f"{sample.img_path}: training needs masks of ({side}, {side}), the pipeline gives {found}; set "
                f"target_size={side} in its FitSquare, or square={side} in its JitterSquare"
            )
        labels = sample.gt_instances.labels
        if len(labels) and int(labels.max()) >= len(self.classes):
            raise ConfigError(
                f"{sample.img_path} has an object of class {int(labels.max())} (from 0), the model has "
                f"{len(self.classes)} classes ({', '.join(self.classes)}); set model.classes to those of the data"
            )

    @torch.no_grad()
    def predict(self, batch_inputs: Sequence[Tensor], batch_data_samples: Sequence[Any]) -> list[Any]:
        """Add ``pred_instances`` to each sample, the best score first.

        Fields: ``masks`` (N, H, W) bool at the original size, ``bboxes`` (N, 4) in original pixels, ``scores`` (N,)
        (probability of the class times the mean probability of the mask's pixels), ``labels`` (N,).

        Raises:
            ConfigError: the pipeline resizes otherwise than the weights need.
        """
        check_transforms(batch_data_samples, self.backbone.preprocessing)
        classes, masks = self._forward(batch_inputs, batch_data_samples)
        for sample, logits, mask_logits in zip(batch_data_samples, classes, masks, strict=True):
            sample.pred_instances = detections(logits, mask_logits, sample.transform, self.max_per_image)
        return list(batch_data_samples)

    def _forward(
        self, batch_inputs: Sequence[Tensor], batch_data_samples: Sequence[Any] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the last layer's class logits (B, Q, K + 1) and mask logits (B, Q, h, w) over the padded square."""
        classes, masks = self.panoptic_head(self.extract_feat(batch_inputs), batch_data_samples)
        return classes[-1].float(), masks[-1].float()


def detections(logits: Tensor, mask_logits: Tensor, transform: SquareTransform, count: int) -> InstanceData:
    """Turn the queries of one image into detections, as Mask2Former does; empty masks are left out.

    Args:
        logits: (Q, K + 1) of the classes, "no object" last.
        mask_logits: (Q, h, w) over the padded square.
        transform: of the image.
        count: how many pairs of query and class to take at most.
    """
    classes = logits.shape[1] - 1
    probabilities = logits.softmax(dim=-1)[:, :-1].flatten()
    top, chosen = probabilities.topk(min(count, len(probabilities)))
    queries, owner = torch.unique(chosen // classes, return_inverse=True)
    height, width = transform.original_size
    masks = torch.zeros(len(queries), height, width, dtype=torch.bool, device=logits.device)
    quality = torch.zeros(len(queries), device=logits.device)
    for start in range(0, len(queries), CHUNK):
        enlarged = transform.logits_back(mask_logits[queries[start : start + CHUNK]])
        inside = enlarged > 0
        masks[start : start + CHUNK] = inside
        total = (enlarged.sigmoid() * inside).flatten(1).sum(dim=1)
        quality[start : start + CHUNK] = total / (inside.flatten(1).sum(dim=1) + 1e-6)
    scores = top * quality[owner]
    order = scores.argsort(descending=True, stable=True)
    order = order[masks.flatten(1).any(dim=1)[owner][order]]
    found = masks[owner[order]]
    return InstanceData(
        masks=found, bboxes=box_of_masks(found), scores=scores[order], labels=(chosen % classes)[order]
    )
