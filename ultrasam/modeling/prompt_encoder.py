"""Prompt encoder of SAM (paper section 2.2): points, boxes and masks of any number of objects to tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ultrasam.modeling.common import LayerNorm2d

PADDING, NOT_A_POINT, NEGATIVE, POSITIVE, CORNER_A, CORNER_B = -2, -1, 0, 1, 2, 3


@dataclass
class Prompts:
    """Prompts of N objects, flat over the images of a batch.

    Attributes:
        coords: (N, T, 2) float32, x then y, pixels of the resized unpadded image; zeros where ``labels`` is
            ``NOT_A_POINT`` or ``PADDING``.
        labels: (N, T) int64; -2 padding (the token does not exist), -1 not a point, 0 negative point,
            1 positive point, 2 and 3 the first and second corner of a box.
        image_index: (N,) int64, the image of the batch that each object lies in.
        masks: (N, 1, 4h, 4w) float logits for an embedding of h x w, or None.
        has_mask: (N,) bool, which rows of ``masks`` count; None means all of them.
    """

    coords: Tensor
    labels: Tensor
    image_index: Tensor
    masks: Tensor | None = None
    has_mask: Tensor | None = None

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def select(self, index: slice | Tensor) -> Prompts:
        """Return the prompts of some objects, ``index`` a slice or an index tensor over N."""
        return Prompts(
            self.coords[index],
            self.labels[index],
            self.image_index[index],
            None if self.masks is None else self.masks[index],
            None if self.has_mask is None else self.has_mask[index],
        )

    @staticmethod
    def build(
        points: Sequence[Tensor | None],
        point_labels: Sequence[Tensor | None],
        boxes: Sequence[Tensor | None],
        image_index: Tensor,
        masks: Tensor | None = None,
        has_mask: Tensor | None = None,
        device: torch.device | str | None = None,
    ) -> Prompts:
        """Lay out ragged prompts of N objects as SAM does: points, then a box's corners or not-a-point.

        Args:
            points: per object (P, 2) x, y in pixels of the resized image, or None.
            point_labels: per object (P,), 1 positive, 0 negative, or None.
            boxes: per object (4,) x1, y1, x2, y2 in the same pixels, or None.
            image_index: (N,) int64.
            masks: (N, 1, 4h, 4w) logits or None.
            has_mask: (N,) bool or None.
            device: where to put the tokens.
        """
        coord_rows, label_rows = [], []
        for xy, signs, box in zip(points, point_labels, boxes, strict=True):
            coord = torch.zeros(0, 2) if xy is None else torch.as_tensor(xy, dtype=torch.float32).reshape(-1, 2)
            label = (
                torch.zeros(0, dtype=torch.long)
                if signs is None
                else torch.as_tensor(signs, dtype=torch.long).reshape(-1)
            )
            if len(coord) != len(label):
                raise ValueError(f"{len(coord)} points but {len(label)} point labels for one object")
            if box is not None:
                corners = torch.as_tensor(box, dtype=torch.float32).reshape(2, 2)
                coord = torch.cat([coord, corners])
                label = torch.cat([label, torch.tensor([CORNER_A, CORNER_B])])
            elif len(coord):
                coord = torch.cat([coord, torch.zeros(1, 2)])
                label = torch.cat([label, torch.tensor([NOT_A_POINT])])
            coord_rows.append(coord)
            label_rows.append(label)
        width = max((len(row) for row in label_rows), default=0)
        coords = torch.zeros(len(label_rows), width, 2)
        labels = torch.full((len(label_rows), width), PADDING, dtype=torch.long)
        for row, (coord, label) in enumerate(zip(coord_rows, label_rows, strict=True)):
            coords[row, : len(coord)] = coord
            labels[row, : len(label)] = label
        return Prompts(coords.to(device), labels.to(device), image_index.to(device), masks, has_mask)


class PositionEmbeddingRandom(nn.Module):
    """Random Fourier features of positions in the unit square (SAM's ``pe_layer``).

    Args:
        features: half of the code's width.
    """

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, features))

    def encode(self, unit_xy: Tensor) -> Tensor:
        """Map (..., 2) positions in [0, 1], x then y, to (..., 2 * features), computed in float32."""
        matrix = self.positional_encoding_gaussian_matrix.float()
        with torch.autocast(unit_xy.device.type, enabled=False):
            angle = 2 * math.pi * ((2 * unit_xy.float() - 1) @ matrix)
            return torch.cat([angle.sin(), angle.cos()], dim=-1)

    def grid(self, height: int, width: int) -> Tensor:
        """Return the (height * width, C) code of the cell centres of a grid, row by row."""
        device = self.positional_encoding_gaussian_matrix.device
        y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
        x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
        grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)
        return self.encode(grid).flatten(0, 1)


class PromptEncoder(nn.Module):
    """Encode points, boxes and masks (state-dict names are SAM's).

    Args:
        embed_dim: width C of the tokens (256).
        image_size: side of the network's square, pixels.
        embedding_size: side of the image embedding, cells.
        mask_channels: hidden channels of the mask downscaling (16).
    """

    def __init__(self, embed_dim: int, image_size: int, embedding_size: int, mask_channels: int = 16) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.image_size = image_size
        self.embedding_size = embedding_size
        self.pe_layer = PositionEmbeddingRandom(embed_dim // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, embed_dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, kernel_size=2, stride=2),
            LayerNorm2d(mask_channels // 4),
            nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, kernel_size=2, stride=2),
            LayerNorm2d(mask_channels),
            nn.GELU(),
            nn.Conv2d(mask_channels, embed_dim, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, embed_dim)

    def dense_position_code(self) -> Tensor:
        """Return the (h * w, C) position code of the image embedding's cells."""
        return self.pe_layer.grid(self.embedding_size, self.embedding_size)

    def forward(self, prompts: Prompts) -> tuple[Tensor, Tensor | None, Tensor]:
        """Encode prompts of N objects.

        Returns:
            tokens: (N, T, C).
            exists: (N, T) bool, False at padding; None where every token exists.
            dense: (N, C, h, w) from the mask prompts, or (1, C, 1, 1) where no object has one.
        """
        labels = prompts.labels
        # Half a pixel moves the coordinate to the pixel's centre; then the square becomes the unit square.
        code = self.pe_layer.encode((prompts.coords + 0.5) / self.image_size)
        code = code * (labels >= 0).unsqueeze(-1)
        table = torch.cat(
            [
                torch.zeros_like(self.not_a_point_embed.weight),
                self.not_a_point_embed.weight,
                *(parameter for parameter in self.point_embeddings.parameters()),
            ]
        )
        tokens = code + table[labels + 2]
        padded = labels == PADDING
        exists = ~padded if bool(padded.any()) else None
        return tokens, exists, self.encode_masks(prompts)

    def encode_masks(self, prompts: Prompts) -> Tensor:
        """Return (N, C, h, w) for mask prompts, with the no-mask code where an object has none."""
        no_mask = self.no_mask_embed.weight.reshape(1, -1, 1, 1)
        if prompts.masks is None:
            return no_mask
        side = 4 * self.embedding_size
        if tuple(prompts.masks.shape[1:]) != (1, side, side):
            raise ValueError(
                f"mask prompts must be (N, 1, {side}, {side}) low-resolution logits, got {tuple(prompts.masks.shape)}"
            )
        dense = self.mask_downscaling(prompts.masks)
        if prompts.has_mask is None:
            return dense
        return torch.where(prompts.has_mask.reshape(-1, 1, 1, 1), dense, no_mask.to(dense.dtype))
