"""The two halves of SAM as modules that can be traced: every size that may change is read from a tensor."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ultrasam.modeling.attention import relative_bias
from ultrasam.modeling.image_encoder import EncoderAttention, ImageEncoder
from ultrasam.modeling.prompt_encoder import NOT_A_POINT
from ultrasam.modeling.sam import Sam
from ultrasam.modeling.tiny_vit import ConvNorm

ENCODER_INPUTS = ("image",)
ENCODER_OUTPUTS = ("embedding",)
DECODER_INPUTS = ("embedding", "coords", "labels", "mask", "has_mask")
DECODER_OUTPUTS = ("logits", "iou")


def for_tracing(sam: Sam) -> Sam:
    """Return a copy on the CPU, in float32, whose encoder computes without loops over the data and without a store."""
    sam = copy.deepcopy(sam).cpu().float().eval().requires_grad_(False)
    if isinstance(sam.image_encoder, ImageEncoder):
        for block in sam.image_encoder.blocks:
            attention: Any = block.attn
            attention.attend = partial(attend, attention)
    fold_norms(sam.image_encoder)
    return sam


def attend(attention: EncoderAttention, qkv: Tensor, grid: tuple[int, int]) -> Tensor:
    """As ``EncoderAttention.attend`` with one matrix of scores only (0.8 GB for the whole grid at 1024).

    The bias is folded into longer queries and keys, see ``ultrasam.modeling.attention``; written out, because the fused
    operator with a scale of its own cannot be exported by PyTorch 2.4.
    """
    height, width = grid
    q, k, v = qkv.unflatten(-1, (3, attention.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    rel_h, rel_w = relative_bias(q, attention.rel_pos_h, attention.rel_pos_w, grid)
    rows = torch.eye(height).repeat_interleave(width, dim=0)
    columns = torch.eye(width).repeat(height, 1)
    codes = torch.cat([rows, columns], dim=1).expand(q.shape[0], q.shape[1], -1, -1)
    long_q = torch.cat([q * attention.qkv.in_features**-0.5 * attention.heads**0.5, rel_h, rel_w], dim=-1)
    scores = long_q @ torch.cat([k, codes], dim=-1).transpose(-2, -1)
    return (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)


def fold_norms(module: nn.Module) -> None:
    """Replace every convolution with BatchNorm below a module by the one convolution that equals both."""
    for name, child in module.named_children():
        if isinstance(child, ConvNorm):
            weight, bias = child.fold()
            old = child.c
            sizes = (old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding)  # type: ignore[var-annotated]
            conv = nn.Conv2d(*sizes, groups=old.groups)  # type: ignore[arg-type]
            conv.weight, conv.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
            setattr(module, name, conv)
        else:
            fold_norms(child)


class EncoderGraph(nn.Module):
    """Pixels to embedding; scaling and padding are inside, so that only the resizing is left to the caller.

    Args:
        sam: a network from ``for_tracing``.
    """

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.encoder = sam.image_encoder
        self.preprocessing = sam.preprocessing

    def forward(self, image: Tensor) -> Tensor:
        """Encode uint8 (h, w, 3), RGB, resized to the square but not padded: float32 (1, C, H, W)."""
        # With gradients on (no weight wants one) TinyViT takes whole maps, not strips chosen by this machine's cache.
        with torch.enable_grad():
            pixels = self.preprocessing.normalize(image.permute(2, 0, 1))
            side = self.preprocessing.square
            pixels = F.pad(pixels, (0, side - pixels.shape[2], 0, side - pixels.shape[1]))
            return self.encoder(pixels[None])


class DecoderGraph(nn.Module):
    """Embedding and prompts of any number of objects to all four masks: ``MaskDecoder`` without its shortcuts.

    Args:
        sam: a network from ``for_tracing``.
        masks: also give the masks at the image's own size.
    """

    cell_code: Tensor

    def __init__(self, sam: Sam, masks: bool = False) -> None:
        super().__init__()
        self.prompts = sam.prompt_encoder
        self.decoder = sam.mask_decoder
        self.square = sam.image_size
        self.squash = sam.preprocessing.mode == "squash"
        self.masks = masks
        self.register_buffer("cell_code", sam.prompt_encoder.dense_position_code())

    def forward(
        self,
        embedding: Tensor,
        coords: Tensor,
        labels: Tensor,
        mask: Tensor,
        has_mask: Tensor,
        original_size: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Decode N objects of one image.

        Args:
            embedding: (1, C, h, w) float32.
            coords: (N, T, 2) float32, x, y in pixels of the resized image, without the half pixel.
            labels: (N, T) int64: 1 inside, 0 outside, 2 and 3 a box's corners, -1 "not a point" (follows points
                where there is no box), -2 padding.
            mask: (N, 1, 4h, 4w) float32, logits of an earlier answer; anything where ``has_mask`` is False.
            has_mask: (N,) bool.
            original_size: (2,) int64, height, width of the image, with ``masks``.

        Returns:
            logits (N, 4, 4h, 4w), predicted IoU (N, 4); 0 is the single mask, 1 to 3 the ambiguous ones. With
            ``masks`` also their logits at the original size (N, 4, H, W).
        """
        tokens, exists = self.tokens(coords, labels)
        plain = self.prompts.no_mask_embed.weight.reshape(1, -1, 1, 1)
        dense = torch.where(has_mask.reshape(-1, 1, 1, 1), self.prompts.mask_downscaling(mask), plain)
        decoder = self.decoder
        cells = (embedding + dense).flatten(2).transpose(1, 2)
        tokens, cells = decoder.transformer(tokens, cells, self.cell_code, exists, None)
        kernels = torch.stack(
            [mlp(tokens[:, 1 + row]) for row, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1
        )
        side = self.prompts.embedding_size
        logits = decoder.paint_plain(cells, kernels, side, side)
        iou = decoder.iou_prediction_head(tokens[:, 0])
        if not self.masks:
            return logits, iou
        assert original_size is not None
        return logits, iou, self.enlarge(logits, original_size)

    def tokens(self, coords: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output and prompt tokens (N, 5 + T, C) and which of them exist (N, 5 + T)."""
        prompts, decoder = self.prompts, self.decoder
        code = prompts.pe_layer.encode((coords + 0.5) / prompts.image_size) * (labels >= 0).unsqueeze(-1)
        nothing = prompts.not_a_point_embed.weight
        table = torch.cat([torch.zeros_like(nothing), nothing, *prompts.point_embeddings.parameters()])
        first = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        exists = F.pad(labels >= NOT_A_POINT, (first.shape[0], 0), value=True)
        first = first[None].expand(coords.shape[0], -1, -1)
        return torch.cat([first, code + table[labels + 2]], dim=1), exists

    def enlarge(self, logits: Tensor, original_size: Tensor) -> Tensor:
        """Return (N, 4, H, W) as ``SquareTransform.logits_back`` does."""
        size = original_size.double()
        resized = torch.full_like(size, self.square) if self.squash else size * (self.square / size.max())
        resized = (resized + 0.5).floor().clamp(min=1).long()
        square = F.interpolate(logits, (self.square, self.square), mode="bilinear", align_corners=False)
        part = square[:, :, : resized[0], : resized[1]]
        # Sizes stay tensors, so that the graph keeps reading them.
        whole: Any = (original_size[0], original_size[1])
        return F.interpolate(part, whole, mode="bilinear", align_corners=False)
