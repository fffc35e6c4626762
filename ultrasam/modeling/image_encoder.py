"""Image encoder of SAM: a Vision Transformer with windowed and global attention (paper section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ultrasam.modeling.attention import (
    attend_chunked,
    attend_folded,
    attend_mask,
    attend_plain,
    relative_bias,
)
from ultrasam.modeling.common import LayerNorm2d, MLPBlock

ATTENTION_PATHS = {"plain": attend_plain, "mask": attend_mask, "folded": attend_folded, "chunked": attend_chunked}


class PatchEmbed(nn.Module):
    """Cut the image into patches: one convolution (SAM's name ``proj``)."""

    def __init__(self, patch_size: int, dim: int, channels: int = 3) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, S, S) to (B, S / p, S / p, dim)."""
        # Contiguous here, or the whole residual stream inherits the permuted strides and each layer copies it.
        return self.proj(x).permute(0, 2, 3, 1).contiguous()


class EncoderAttention(nn.Module):
    """Multi-head self attention with decomposed relative positions.

    Args:
        dim: width.
        heads: attention heads.
        window: side of a window in cells; 0 attends over the whole grid.
        grid: side of the grid that the position tables are made for (window, or the whole grid).
    """

    def __init__(self, dim: int, heads: int, window: int, grid: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        head_dim = dim // heads
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * grid - 1, head_dim))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * grid - 1, head_dim))
        self.path = "auto"

    def choose_path(self, x: Tensor) -> str:
        """Return the fastest exact form here; measured on CPU (AVX-512, AMX), chosen by memory on CUDA."""
        if self.path != "auto":
            return self.path
        if self.window:
            return "folded" if x.dtype == torch.bfloat16 or x.is_cuda else "mask"
        if x.is_cuda or torch.is_grad_enabled() or x.dtype != torch.float32:
            return "folded"
        return "chunked"

    def attend(self, qkv: Tensor, grid: tuple[int, int]) -> Tensor:
        """Attend within grids: (B, h * w, 3 * dim) to (B, h * w, dim)."""
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        rel_h, rel_w = relative_bias(q, self.rel_pos_h, self.rel_pos_w, grid)
        out = ATTENTION_PATHS[self.choose_path(q)](q, k, v, rel_h, rel_w)
        return out.transpose(1, 2).flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, h, w, dim) to the same."""
        batch, height, width, _ = x.shape
        if not self.window:
            out = self.attend(self.qkv(x).flatten(1, 2), (height, width))
            return self.proj(out).unflatten(1, (height, width))
        # SAM pads the normalised cells with zeros up to whole windows, and padded cells take part as keys. Their
        # projection is the bias, so the projection runs on the real cells only: 20 % less work at 64 -> 70.
        side = self.window
        pad_h, pad_w = -height % side, -width % side
        if pad_h or pad_w:
            qkv = F.pad(F.linear(x, self.qkv.weight), (0, 0, 0, pad_w, 0, pad_h))
            qkv = qkv + self.qkv.bias.to(qkv.dtype)
        else:
            qkv = self.qkv(x)
        rows, columns = (height + pad_h) // side, (width + pad_w) // side
        windows = qkv.reshape(batch, rows, side, columns, side, -1).transpose(2, 3).flatten(0, 2).flatten(1, 2)
        out = self.attend(windows, (side, side))
        out = out.reshape(batch, rows, columns, side, side, -1).transpose(2, 3)
        out = out.reshape(batch, height + pad_h, width + pad_w, -1)[:, :height, :width]
        return self.proj(out)


class Block(nn.Module):
    """Transformer block: attention and MLP, each behind a normalisation and with a residual."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, window: int, grid: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = EncoderAttention(dim, heads, window, window or grid)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLPBlock(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, h, w, dim) to the same."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ImageEncoder(nn.Module):
    """SAM's image encoder (state-dict names are SAM's).

    Args:
        image_size: side of the network's square in pixels, a multiple of ``patch_size``.
        patch_size: side of a patch.
        dim: width (ViT-B 768).
        depth: number of blocks (12).
        heads: attention heads (12).
        mlp_ratio: hidden width of an MLP over ``dim``.
        out_dim: channels of the embedding (256).
        window: side of the windows in cells (14).
        global_blocks: blocks that attend over the whole grid (2, 5, 8, 11).
    """

    def __init__(
        self,
        image_size: int = 1024,
        patch_size: int = 16,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        out_dim: int = 256,
        window: int = 14,
        global_blocks: Sequence[int] = (2, 5, 8, 11),
    ) -> None:
        super().__init__()
        if image_size % patch_size:
            raise ValueError(f"image_size must be a multiple of {patch_size}, got {image_size}")
        self.image_size = image_size
        self.stride = patch_size
        self.embed_dim_out = out_dim
        grid = image_size // patch_size
        self.patch_embed = PatchEmbed(patch_size, dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, dim))
        self.blocks = nn.ModuleList(
            Block(dim, heads, mlp_ratio, 0 if index in global_blocks else window, grid) for index in range(depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(dim, out_dim, kernel_size=1, bias=False),
            LayerNorm2d(out_dim),
            nn.Conv2d(out_dim, out_dim, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(out_dim),
        )
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def set_attention_path(self, path: str) -> None:
        """Choose how attention is computed: "auto", "plain", "mask", "folded" or "chunked" (all equal)."""
        if path != "auto" and path not in ATTENTION_PATHS:
            raise ValueError(f"attention path must be auto or one of {sorted(ATTENTION_PATHS)}, got {path!r}")
        for block in self.blocks:
            assert isinstance(block, Block)
            block.attn.path = path

    def position_table(self, height: int, width: int) -> Tensor:
        """Return the (1, height, width, dim) table, interpolated bicubically for another grid."""
        if self.pos_embed.shape[1:3] == (height, width):
            return self.pos_embed
        table = self.pos_embed.permute(0, 3, 1, 2).float()
        table = F.interpolate(table, size=(height, width), mode="bicubic", align_corners=False)
        return table.permute(0, 2, 3, 1)

    def embed(self, x: Tensor) -> Tensor:
        """Return the patches of normalised images (B, 3, H, W) with their positions: (B, h, w, dim)."""
        if x.shape[-2] % self.stride or x.shape[-1] % self.stride:
            raise ValueError(f"image sides must be multiples of {self.stride}, got {tuple(x.shape[-2:])}")
        x = self.patch_embed(x)
        return x + self.position_table(x.shape[1], x.shape[2]).to(x.dtype)

    def features(self, x: Tensor, taps: Sequence[int] = ()) -> tuple[Tensor, list[Tensor]]:
        """Return the last (B, h, w, dim) map and those after the blocks named by ``taps``."""
        x = self.embed(x)
        kept = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in taps:
                kept.append(x)
        return x, kept

    def stages(self) -> list[nn.Module]:
        """Return the modules that ``run`` counts: patch embedding (with positions), every block, neck."""
        return [self.patch_embed, *self.blocks, self.neck]

    def run(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Pass a map through ``stages()[start:stop]``; ``run(run(x, 0, k), k)`` is ``forward(x)``.

        The input is (B, 3, H, W) where ``start`` is 0, later (B, h, w, dim); the neck returns (B, out_dim, h, w).
        """
        for stage in self.stages()[start:stop]:
            if stage is self.patch_embed:
                x = self.embed(x)
            elif stage is self.neck:
                x = self.neck(x.permute(0, 3, 1, 2))
            else:
                x = stage(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Encode normalised images (B, 3, H, W) to embeddings (B, out_dim, H / p, W / p)."""
        return self.neck(self.features(x)[0].permute(0, 3, 1, 2))
