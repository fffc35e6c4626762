"""SAMUS (Lin et al. 2023): SAM's encoder at a quarter of the side, with a branch of convolutions beside it.

Names are those of the published code, so that its weights load. The image is enlarged by 8 pixels and cut into
overlapping patches (16 wide, 8 apart): an image of 256 has 32 x 32 tokens. In each global block the tokens attend to
the branch's map, which is refined afterwards. Every new layer starts as PyTorch draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ultrasam.adapters.options import SamusOptions
from ultrasam.adapters.sharing import share
from ultrasam.errors import ConfigError
from ultrasam.modeling.common import LayerNorm2d
from ultrasam.modeling.image_encoder import Block, EncoderAttention, ImageEncoder

STRIDE = 8
# SAMUS's pixels: 0 to 1, both sides resized to the square.
PIXELS: dict[str, Any] = {
    "mode": "squash",
    "interpolation": "bilinear",
    "scaling": "mean_std",
    "mean": (0.0, 0.0, 0.0),
    "std": (255.0, 255.0, 255.0),
}
LUMINANCE = (0.299, 0.587, 0.114)


class SingleConv(nn.Module):
    """3 x 3 convolution without bias, normalisation over channels, GELU (published name ``conv``)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), LayerNorm2d(out_channels), nn.GELU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H, W)."""
        return self.conv(x)


class SingleDown(nn.Module):
    """Halve by the maximum of 2 x 2, then as ``SingleConv`` (published name ``maxpool_conv``)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(
            nn.MaxPool2d(2),
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            LayerNorm2d(out_channels),
            nn.GELU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / 2, W / 2)."""
        return self.maxpool_conv(x)


class CnnBranch(nn.Module):
    """The branch of convolutions: (B, 3, H, W) to (B, dim, H / 8, W / 8)."""

    def __init__(self, widths: Sequence[int], dim: int) -> None:
        super().__init__()
        self.inc = SingleConv(3, widths[0])
        steps = zip(widths, [*widths[1:], dim], strict=True)
        self.downs = nn.ModuleList(SingleDown(before, after) for before, after in steps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, dim, H / 8, W / 8)."""
        x = self.inc(x)
        for down in self.downs:
            x = down(x)
        return x


class PositionAdapter(nn.Module):
    """SAM's position table at half its side: (1, 2h, 2w, dim) to (1, h, w, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.downs = nn.ModuleList([SingleDown(dim, dim)])

    def forward(self, table: Tensor) -> Tensor:
        """Map (1, 2h, 2w, dim) to (1, h, w, dim)."""
        return self.downs[0](table.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class FeatureAdapter(nn.Module):
    """Bottleneck (..., dim) to the same (published names ``D_fc1``, ``D_fc2``).

    Args:
        dim: width outside.
        ratio: width inside over that outside.
        skip: add the input.
    """

    def __init__(self, dim: int, ratio: float, skip: bool) -> None:
        super().__init__()
        hidden = max(int(dim * ratio), 1)
        self.D_fc1 = nn.Linear(dim, hidden)
        self.D_fc2 = nn.Linear(hidden, dim)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., dim) to (..., dim)."""
        out = self.D_fc2(F.gelu(self.D_fc1(x)))
        return x + out if self.skip else out


class CrossBranchAttention(nn.Module):
    """Tokens attend to the branch's map; no relative positions."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, branch: Tensor) -> Tensor:
        """Map tokens (B, h, w, dim) and the branch (B, dim, h, w) to (B, h, w, dim)."""
        cells = branch.flatten(2).transpose(1, 2)

        def by_head(x: Tensor) -> Tensor:
            return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        q, k, v = by_head(self.q(tokens.flatten(1, 2))), by_head(self.k(cells)), by_head(self.v(cells))
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.proj(out).unflatten(1, tokens.shape[1:3])


class SamusBlock(Block):
    """A global block of SAM with both branches (published names of its new layers)."""

    Space_Adapter: CrossBranchAttention
    MLP_Adapter: FeatureAdapter
    refine_Adapter: SingleConv  # noqa: N815
    scale: float

    def both(self, x: Tensor, branch: Tensor) -> tuple[Tensor, Tensor]:
        """Map tokens (B, h, w, dim) and the branch (B, dim, h, w) to the same."""
        n = self.norm1(x)
        n = n + self.Space_Adapter(n, branch)
        branch = self.refine_Adapter(branch)
        x = x + self.attn(n)
        m = self.norm2(x)
        return x + self.mlp(m) + self.scale * self.MLP_Adapter(m), branch


class SamusEncoder(ImageEncoder):
    """SAM's encoder with SAMUS's layers: images (B, 3, H, W) to (B, 256, H / 8, W / 8)."""

    cnn_embed: CnnBranch
    post_pos_embed: PositionAdapter
    input_Adapter: FeatureAdapter  # noqa: N815
    gray: bool
    scale: float

    def grayed(self, x: Tensor) -> Tensor:
        """Return (B, 3, H, W) with the luminance in all channels."""
        if not self.gray:
            return x
        weights = torch.tensor(LUMINANCE, device=x.device, dtype=x.dtype).reshape(1, 3, 1, 1)
        return (x * weights).sum(1, keepdim=True).expand_as(x)

    def embed(self, x: Tensor) -> Tensor:
        """Return the overlapping patches of (B, 3, H, W) with their positions: (B, H / 8, W / 8, dim)."""
        height, width = x.shape[-2:]
        if height % STRIDE or width % STRIDE:
            raise ValueError(f"image sides must be multiples of {STRIDE}, got {(height, width)}")
        larger = (height + STRIDE, width + STRIDE)
        x = F.interpolate(x, size=larger, mode="bilinear", align_corners=False)
        proj = self.patch_embed.proj
        x = F.conv2d(x, proj.weight, proj.bias, stride=STRIDE).permute(0, 2, 3, 1).contiguous()
        table = self.post_pos_embed(self.position_table(2 * height // STRIDE, 2 * width // STRIDE))
        return self.input_Adapter(x) + table.to(x.dtype)

    def features(self, x: Tensor, taps: Sequence[int] = ()) -> tuple[Tensor, list[Tensor]]:
        """Return the last (B, h, w, dim) map, the branch added, and those after the blocks named by ``taps``."""
        x = self.grayed(x)
        branch = self.cnn_embed(x)
        x = self.embed(x)
        kept = []
        for index, block in enumerate(self.blocks):
            if isinstance(block, SamusBlock):
                x, branch = block.both(x, branch)
            else:
                x = block(x)
            if index in taps:
                kept.append(x)
        return x + self.scale * branch.permute(0, 2, 3, 1), kept

    def stages(self) -> list[nn.Module]:
        """Return the encoder as one stage: its two branches end together."""
        return [self]

    def run(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Pass images through ``stages()[start:stop]``."""
        return x if start or stop == 0 else self(x)


def samus_encoder(encoder: nn.Module, options: SamusOptions) -> SamusEncoder:
    """Return SAMUS's encoder over the weights of SAM's, which stays as it is.

    The tables of relative positions of global blocks are resized to SAMUS's grid and train.

    Raises:
        ConfigError: the encoder is no ViT of SAM.
    """
    if not isinstance(encoder, ImageEncoder) or isinstance(encoder, SamusEncoder):
        raise ConfigError(
            f"SAMUS is made of SAM's ViT, but this network has the encoder {type(encoder).__name__}; "
            "use LoRA or Med-SA with it"
        )
    dim, grid = encoder.pos_embed.shape[-1], options.image_size // STRIDE
    device = encoder.pos_embed.device
    twin = share(encoder, SamusEncoder)
    twin.image_size, twin.stride = options.image_size, STRIDE
    twin.gray, twin.scale = options.gray, options.scale
    twin.cnn_embed = CnnBranch(options.cnn_widths, dim).to(device)
    twin.post_pos_embed = PositionAdapter(dim).to(device)
    twin.input_Adapter = FeatureAdapter(dim, options.ratio, skip=True).to(device)
    twin.blocks = nn.ModuleList(
        _global_block(block, options, grid) if isinstance(block, Block) and not block.attn.window else block
        for block in encoder.blocks
    )
    return twin


def resized_table(table: Tensor, length: int) -> Tensor:
    """Resize a table of relative positions (L, D) along its length, as the published code does."""
    if table.shape[0] == length:
        return table
    return F.interpolate(table[None, None], size=(length, table.shape[1]), mode="bilinear", align_corners=False)[0, 0]


def trained_parts(encoder: SamusEncoder) -> tuple[list[nn.Module], list[nn.Parameter]]:
    """Return the new modules and the tables that train."""
    modules: list[nn.Module] = [encoder.cnn_embed, encoder.post_pos_embed, encoder.input_Adapter]
    tables: list[nn.Parameter] = []
    for block in encoder.blocks:
        if isinstance(block, SamusBlock):
            modules += [block.MLP_Adapter, block.Space_Adapter, block.refine_Adapter]
            tables += [block.attn.rel_pos_h, block.attn.rel_pos_w]
    return modules, tables


def _global_block(block: Block, options: SamusOptions, grid: int) -> SamusBlock:
    dim, device = block.attn.qkv.in_features, block.attn.qkv.weight.device
    twin = share(block, SamusBlock)
    twin.scale = options.scale
    twin.MLP_Adapter = FeatureAdapter(dim, options.ratio, skip=False).to(device)
    twin.Space_Adapter = CrossBranchAttention(dim, block.attn.heads).to(device)
    twin.refine_Adapter = SingleConv(dim, dim).to(device)
    twin.attn = share(block.attn, EncoderAttention)
    for name in ("rel_pos_h", "rel_pos_w"):
        table = resized_table(getattr(block.attn, name).detach(), 2 * grid - 1)
        setattr(twin.attn, name, nn.Parameter(table.clone()))
    return twin
