"""Mask decoder of SAM: output tokens become masks and predicted IoUs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ultrasam.modeling.common import MLP, LayerNorm2d
from ultrasam.modeling.transformer import TwoWayTransformer

SINGLE, MULTI = slice(0, 1), slice(1, None)


class MaskDecoder(nn.Module):
    """Predict masks from an image embedding and prompt tokens (state-dict names are SAM's).

    Args:
        transformer: the two-way transformer.
        dim: width C of tokens and embedding (256).
        multimask_outputs: masks of the ambiguous output (3); one more token gives the single mask.
        iou_hidden_dim: hidden width of the IoU head.
        iou_depth: linear layers of the IoU head.
    """

    def __init__(
        self,
        transformer: TwoWayTransformer,
        dim: int = 256,
        multimask_outputs: int = 3,
        iou_hidden_dim: int = 256,
        iou_depth: int = 3,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.mask_count = multimask_outputs + 1
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(self.mask_count, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim // 8, 3) for _ in range(self.mask_count))
        self.iou_prediction_head = MLP(dim, iou_hidden_dim, self.mask_count, iou_depth)

    def forward(
        self,
        image_embeddings: Tensor,
        cell_code: Tensor,
        tokens: Tensor,
        dense: Tensor,
        image_index: Tensor,
        exists: Tensor | None = None,
        outputs: slice = MULTI,
    ) -> tuple[Tensor, Tensor]:
        """Decode N objects that lie in B images.

        Args:
            image_embeddings: (B, C, h, w).
            cell_code: (h * w, C) position code of the embedding's cells.
            tokens: (N, T, C) prompt tokens.
            dense: (N, C, h, w) mask prompts, or (1, C, 1, 1), the code of no mask.
            image_index: (N,) int64.
            exists: (N, T) bool, False at padding tokens, or None.
            outputs: which mask tokens to return: ``SINGLE`` (token 0) or ``MULTI`` (tokens 1 to 3).

        Returns:
            logits: (N, M, 4h, 4w) mask logits.
            iou: (N, M) predicted IoU.
        """
        height, width = image_embeddings.shape[-2:]
        first = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(len(tokens), -1, -1)
        count = first.shape[1]
        tokens = torch.cat([first.to(tokens.dtype), tokens], dim=1)
        if exists is not None:
            exists = F.pad(exists, (count, 0), value=True)
        # Contiguous here: every later sum of cells with a linear layer's output would otherwise mix two layouts.
        cells = image_embeddings.flatten(2).transpose(1, 2).contiguous()
        if dense.shape[0] == 1 and dense.shape[-1] == 1:
            cells, spread = cells + dense.flatten(2).transpose(1, 2), image_index
        else:
            cells, spread = cells[image_index] + dense.flatten(2).transpose(1, 2).contiguous(), None
        tokens, cells = self.transformer(tokens, cells, cell_code.to(cells.dtype), exists, spread)
        kernels = torch.stack(
            [
                self.output_hypernetworks_mlps[index](tokens[:, 1 + index])
                for index in range(self.mask_count)[outputs]
            ],
            dim=1,
        )
        logits = self.paint(cells, kernels, height, width)
        return logits, self.iou_prediction_head(tokens[:, 0])[:, outputs]

    def paint(self, cells: Tensor, kernels: Tensor, height: int, width: int) -> Tensor:
        """Upscale cells (N, h * w, C) four times and multiply by kernels (N, M, C / 8): (N, M, 4h, 4w).

        A transposed convolution of kernel 2 and stride 2 is a linear layer on each cell. Cells stay in token layout,
        where the linear layers and the normalisation are fastest, and only the finished masks are put in pixel order.
        """
        first, norm, _, second, _ = self.output_upscaling
        assert isinstance(first, nn.ConvTranspose2d) and isinstance(second, nn.ConvTranspose2d)
        assert isinstance(norm, LayerNorm2d)
        x = F.gelu(norm_last(transposed_as_linear(first, cells), norm))
        x = F.gelu(transposed_as_linear(second, x))
        # x is (N, h * w, 2 x 2 of the first step, 2 x 2 of the second, C / 8)
        masks = x.flatten(1, 3) @ kernels.to(x.dtype).transpose(1, 2)
        masks = masks.reshape(len(cells), height, width, 2, 2, 2, 2, -1)
        return masks.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(len(cells), -1, 4 * height, 4 * width)

    def paint_plain(self, cells: Tensor, kernels: Tensor, height: int, width: int) -> Tensor:
        """Compute ``paint`` with the transposed convolutions themselves (its check)."""
        grid = self.output_upscaling(cells.transpose(1, 2).unflatten(-1, (height, width)))
        return (kernels @ grid.flatten(2)).unflatten(-1, grid.shape[-2:])


def transposed_as_linear(layer: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """Apply a 2 x 2, stride 2 transposed convolution to (..., Cin): (..., 4, Cout), 4 = row-major 2 x 2."""
    weight = layer.weight.permute(2, 3, 1, 0).reshape(-1, layer.in_channels)
    bias = None if layer.bias is None else layer.bias.repeat(4)
    return F.linear(x, weight, bias).unflatten(-1, (4, layer.out_channels))


def norm_last(x: Tensor, norm: LayerNorm2d) -> Tensor:
    """Apply a channel normalisation to the last dimension of x."""
    return F.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, norm.eps)
