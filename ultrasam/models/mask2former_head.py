"""MMDetection's Mask2Former head, built from a few numbers, and its decoder's published weights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.models.dense_heads.mask2former_head import Mask2FormerHead
from mmdet.models.layers.msdeformattn_pixel_decoder import MSDeformAttnPixelDecoder
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ultrasam.checkpoints import resolve_weights, safe_load, unwrap
from ultrasam.errors import CheckpointError, ConfigError

logger = logging.getLogger(__name__)

PREFIX = "panoptic_head."
# What depends on the backbone's channels or on the classes, so that a file of other ones may differ in it.
EXCHANGED = ("pixel_decoder.input_convs.", "pixel_decoder.lateral_convs.", "cls_embed.")


@dataclass(frozen=True)
class HeadSizes:
    """Sizes of a Mask2Former head; the values are those of the COCO models with ResNet-50.

    Attributes:
        queries: objects that can be found in an image.
        channels: width of both decoders.
        heads: attention heads.
        encoder_layers: layers of the pixel decoder's deformable attention.
        decoder_layers: layers of the query decoder.
        encoder_mlp: hidden width of the pixel decoder's MLPs.
        decoder_mlp: hidden width of the query decoder's MLPs.
        points: points at which masks are compared in training.
        no_object_weight: weight of "no object" in the classification loss.
    """

    queries: int = 100
    channels: int = 256
    heads: int = 8
    encoder_layers: int = 6
    decoder_layers: int = 9
    encoder_mlp: int = 1024
    decoder_mlp: int = 2048
    points: int = 12544
    no_object_weight: float = 0.1

    def __post_init__(self) -> None:
        counts = {name: value for name, value in vars(self).items() if name != "no_object_weight"}
        small = [name for name, value in counts.items() if value < 1]
        if small or self.channels % (4 * self.heads) or self.no_object_weight <= 0:
            raise ConfigError(
                "sizes of Mask2Former are counts from 1, channels a multiple of 4 x heads, no_object_weight above 0; "
                f"got {vars(self)}"
            )


@MODELS.register_module()
class Float32PixelDecoder(MSDeformAttnPixelDecoder):
    """MMDetection's pixel decoder in float32 whatever the precision around it, as Mask2Former's authors have it.

    Deformable attention samples at positions that bfloat16 would move by cells.
    """

    def forward(self, feats: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the mask features (B, C, h, w) and the maps of three scales, the coarsest first."""
        with torch.autocast(feats[0].device.type, enabled=False):
            return super().forward([part.float() for part in feats])


@MODELS.register_module()
class BitmapMask2FormerHead(Mask2FormerHead):
    """MMDetection's head for masks given as tensors (N, S, S) bool, which keeps them at one byte a pixel.

    MMDetection's own turns the masks of a batch into 64-bit integers: 335 MB for 40 objects at 1024 pixels. Matching
    and losses are in float32 whatever the precision around them.
    """

    def loss_by_feat(
        self,
        all_cls_scores: Sequence[Tensor],
        all_mask_preds: Sequence[Tensor],
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict[str, Any]],
    ) -> dict[str, Tensor]:
        """Return the losses of every layer from class logits (B, Q, K + 1) and mask logits (B, Q, h, w)."""
        scores, masks = ([part.float() for part in parts] for parts in (all_cls_scores, all_mask_preds))
        with torch.autocast(masks[0].device.type, enabled=False):
            return super().loss_by_feat(scores, masks, batch_gt_instances, batch_img_metas)

    def preprocess_gt(
        self, batch_gt_instances: list[InstanceData], batch_gt_semantic_segs: Sequence[Any]
    ) -> list[InstanceData]:
        """Return labels (N,) and masks (N, S, S) bool of each image."""
        return [InstanceData(labels=part.labels, masks=part.masks) for part in batch_gt_instances]


def attention(sizes: HeadSizes) -> dict[str, Any]:
    """Return the configuration of an attention layer."""
    return dict(embed_dims=sizes.channels, num_heads=sizes.heads, dropout=0.0, batch_first=True)


def mlp(sizes: HeadSizes, hidden: int) -> dict[str, Any]:
    """Return the configuration of a transformer layer's MLP."""
    return dict(
        embed_dims=sizes.channels,
        feedforward_channels=hidden,
        num_fcs=2,
        ffn_drop=0.0,
        act_cfg=dict(type="ReLU", inplace=True),
    )


def pixel_decoder(sizes: HeadSizes) -> dict[str, Any]:
    """Return the configuration of the pixel decoder: deformable attention over the three coarse scales."""
    code = dict(num_feats=sizes.channels // 2, normalize=True)
    layer = dict(
        self_attn_cfg={**attention(sizes), "num_levels": 3, "num_points": 4},
        ffn_cfg=mlp(sizes, sizes.encoder_mlp),
    )
    return dict(
        type="Float32PixelDecoder",
        num_outs=3,
        norm_cfg=dict(type="GN", num_groups=min(32, sizes.channels // 4)),
        act_cfg=dict(type="ReLU"),
        encoder=dict(num_layers=sizes.encoder_layers, layer_cfg=layer),
        positional_encoding=code,
    )


def losses(classes: int, sizes: HeadSizes) -> dict[str, Any]:
    """Return the configurations of the losses (class 2, mask 5, Dice 5)."""
    return dict(
        loss_cls=dict(
            type="CrossEntropyLoss",
            use_sigmoid=False,
            loss_weight=2.0,
            reduction="mean",
            class_weight=[1.0] * classes + [sizes.no_object_weight],
        ),
        loss_mask=dict(type="CrossEntropyLoss", use_sigmoid=True, reduction="mean", loss_weight=5.0),
        loss_dice=dict(
            type="DiceLoss",
            use_sigmoid=True,
            activate=True,
            reduction="mean",
            naive_dice=True,
            eps=1.0,
            loss_weight=5.0,
        ),
    )


def matching(sizes: HeadSizes) -> dict[str, Any]:
    """Return the configuration of the training: how queries are matched with objects, and the points compared."""
    costs = [
        dict(type="ClassificationCost", weight=2.0),
        dict(type="CrossEntropyLossCost", weight=5.0, use_sigmoid=True),
        dict(type="DiceCost", weight=5.0, pred_act=True, eps=1.0),
    ]
    return dict(
        num_points=sizes.points,
        oversample_ratio=3.0,
        importance_sample_ratio=0.75,
        assigner=dict(type="HungarianAssigner", match_costs=costs),
        sampler=dict(type="MaskPseudoSampler"),
    )


def build_head(in_channels: Sequence[int], strides: Sequence[int], classes: int, sizes: HeadSizes) -> nn.Module:
    """Build MMDetection's head for instance segmentation, with the values of its COCO models.

    Args:
        in_channels: channels of the four scales, the finest first.
        strides: of the scales in pixels.
        classes: number of classes.
        sizes: of the head.
    """
    layer = dict(
        self_attn_cfg=attention(sizes), cross_attn_cfg=attention(sizes), ffn_cfg=mlp(sizes, sizes.decoder_mlp)
    )
    config = dict(
        type="BitmapMask2FormerHead",
        in_channels=list(in_channels),
        strides=list(strides),
        feat_channels=sizes.channels,
        out_channels=sizes.channels,
        num_things_classes=classes,
        num_stuff_classes=0,
        num_queries=sizes.queries,
        num_transformer_feat_level=3,
        pixel_decoder={**pixel_decoder(sizes), "strides": list(strides)},
        enforce_decoder_input_project=False,
        positional_encoding=dict(num_feats=sizes.channels // 2, normalize=True),
        transformer_decoder=dict(
            return_intermediate=True, num_layers=sizes.decoder_layers, layer_cfg=layer, init_cfg=None
        ),
        train_cfg=matching(sizes),
        test_cfg=dict(),
        **losses(classes, sizes),
    )
    return MODELS.build(ConfigDict(config))


def load_decoder(head: nn.Module, weights: str) -> list[str]:
    """Load a Mask2Former head of MMDetection, such as that of its COCO models with ResNet-50.

    Layers that take the backbone's channels, and the classifier, keep their values where the shapes differ.

    Args:
        head: of ``build_head``.
        weights: the file.

    Returns:
        Names that kept their values.

    Raises:
        CheckpointError: no such head in the file, or one of other sizes; the head is unchanged.
    """
    path = resolve_weights(weights)
    state = {name.removeprefix(PREFIX): v for name, v in unwrap(safe_load(path)).items() if name.startswith(PREFIX)}
    own = head.state_dict()
    own.pop("loss_cls.class_weight", None)
    if not state:
        raise CheckpointError(f"{path} holds no weights named {PREFIX}*; give a Mask2Former file of MMDetection")
    fitting: dict[str, Tensor] = {
        name: value for name, value in state.items() if name in own and own[name].shape == value.shape
    }
    kept = [name for name in own if name not in fitting]
    wrong = [name for name in kept if not name.startswith(EXCHANGED)]
    unknown = [name for name in state if name not in own]
    if wrong or unknown:
        raise CheckpointError(
            f"{path} holds a Mask2Former head of other sizes: {len(wrong)} of {len(own)} weights are missing or of "
            f"another shape, {len(unknown)} unknown (first: {(wrong + unknown)[0]}); set the head's sizes to the file's"
        )
    with torch.no_grad():
        head.load_state_dict(fitting, strict=False)
    logger.info("loaded %d of %d weights of the decoder from %s", len(fitting), len(own), path)
    return kept
