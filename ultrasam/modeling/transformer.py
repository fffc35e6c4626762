"""Two-way transformer of SAM's mask decoder: prompt tokens and image cells attend to each other.

Tokens are kept as (N, T, C) for N objects; image cells start as (B, K, C) for B images and become (N, K, C) when the
first layer writes to them, so whatever does not depend on the object is computed once an image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ultrasam.modeling.attention import attend_from_few, attend_to_few
from ultrasam.modeling.common import MLPBlock

MLP_RESIDUALS = ("single", "double")
# Tokens of an object (5 output tokens and its prompt) up to which the forms for few tokens are the faster ones.
FEW = 16


class Attention(nn.Module):
    """Multi-head attention whose inner width may be smaller than its outer (names are SAM's).

    Args:
        dim: width C of queries, keys and values.
        heads: number of heads.
        downsample: C divided by the inner width.
    """

    def __init__(self, dim: int, heads: int, downsample: int = 1) -> None:
        super().__init__()
        self.heads = heads
        inner = dim // downsample
        if inner % heads:
            raise ValueError(f"inner width {inner} is not a multiple of {heads} heads")
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def split(self, x: Tensor) -> Tensor:
        """(N, T, inner) to (N, heads, T, inner / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from (N, Tq, C) to (N, Tk, C); ``mask`` (N, 1, 1, Tk) bool is False where a key does not exist."""
        return self.attend(self.q_proj(q), self.k_proj(k), self.v_proj(v), mask)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """As ``forward`` on inputs that are projected already."""
        # On a GPU the fused kernel wins in both directions; on a CPU it is slow where one side has few tokens.
        if q.device.type == "cpu" and q.shape[1] > FEW >= k.shape[1]:
            return self.out_proj(attend_to_few(q, k, v, self.heads, mask))
        if q.device.type == "cpu" and k.shape[1] > FEW >= q.shape[1] and mask is None:
            return self.out_proj(attend_from_few(q, k, v, self.heads))
        out = F.scaled_dot_product_attention(self.split(q), self.split(k), self.split(v), attn_mask=mask)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class TwoWayAttentionBlock(nn.Module):
    """Self attention of tokens, tokens to image, MLP, image to tokens.

    Args:
        dim: width C.
        heads: attention heads.
        mlp_dim: hidden width of the MLP.
        downsample: of the cross attentions' inner width.
        first: leave the position code out of the first self attention, whose input is that code itself.
        dropout: of the MLP while training (released UltraSam: 0.1).
    """

    def __init__(
        self, dim: int, heads: int, mlp_dim: int, downsample: int = 2, first: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.self_attn = Attention(dim, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, heads, downsample)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLPBlock(dim, mlp_dim, nn.ReLU, dropout)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, heads, downsample)
        self.first = first
        self.mlp_residual = "single"

    def forward(
        self,
        tokens: Tensor,
        cells: Tensor,
        token_code: Tensor,
        cell_code: Tensor,
        mask: Tensor | None,
        spread: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Update tokens (N, T, C) and cells.

        Args:
            tokens: (N, T, C).
            cells: (N, K, C), or (B, K, C) of the images when ``spread`` is given.
            token_code: (N, T, C), added to tokens wherever they are compared.
            cell_code: (K, C), added to cells wherever they are compared.
            mask: (N, 1, 1, T) bool, False at tokens that do not exist, or None.
            spread: (N,) image of each object while ``cells`` are still one an image; None afterwards.
        """
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens, mask)
        else:
            coded = tokens + token_code
            tokens = tokens + self.self_attn(coded, coded, tokens, mask)
        tokens = self.norm1(tokens)

        coded_cells, plain_cells = for_linear(cells + cell_code), for_linear(cells)
        to_image, to_token = self.cross_attn_token_to_image, self.cross_attn_image_to_token
        keys, values = to_image.k_proj(coded_cells), to_image.v_proj(plain_cells)
        queries = to_token.q_proj(coded_cells)
        if spread is not None:
            keys, values, queries, cells = (x[spread] for x in (keys, values, queries, cells))
        tokens = self.norm2(tokens + to_image.attend(to_image.q_proj(tokens + token_code), keys, values))

        # UltraSam.pth was trained with the identity added twice; the form belongs to the weights.
        identity = 2 * tokens if self.mlp_residual == "double" else tokens
        tokens = self.norm3(identity + self.mlp(tokens))

        coded = tokens + token_code
        update = to_token.attend(queries, to_token.k_proj(coded), to_token.v_proj(tokens), mask)
        return tokens, self.norm4(cells + update)


def for_linear(x: Tensor) -> Tensor:
    """Cast to autocast's type once, where otherwise every layer that reads x would cast it again."""
    if torch.is_autocast_enabled(x.device.type):
        return x.to(torch.get_autocast_dtype(x.device.type))
    return x


class TwoWayTransformer(nn.Module):
    """Layers of ``TwoWayAttentionBlock`` and a last attention from tokens to image.

    Args:
        depth: number of layers (2).
        dim: width C (256).
        heads: attention heads (8).
        mlp_dim: hidden width of the MLPs (2048).
        downsample: of the cross attentions' inner width (2).
        dropout: of the MLPs while training.
    """

    def __init__(
        self,
        depth: int = 2,
        dim: int = 256,
        heads: int = 8,
        mlp_dim: int = 2048,
        downsample: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayAttentionBlock(dim, heads, mlp_dim, downsample, first=index == 0, dropout=dropout)
            for index in range(depth)
        )
        self.final_attn_token_to_image = Attention(dim, heads, downsample)
        self.norm_final_attn = nn.LayerNorm(dim)

    def set_mlp_residual(self, form: str) -> None:
        """Choose ``norm3(q + mlp(q))`` ("single", SAM) or ``norm3(2q + mlp(q))`` ("double", UltraSam.pth)."""
        if form not in MLP_RESIDUALS:
            raise ValueError(f"mlp_residual must be one of {MLP_RESIDUALS}, got {form!r}")
        for layer in self.layers:
            assert isinstance(layer, TwoWayAttentionBlock)
            layer.mlp_residual = form

    def forward(
        self,
        tokens: Tensor,
        cells: Tensor,
        cell_code: Tensor,
        exists: Tensor | None = None,
        spread: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode N objects.

        Args:
            tokens: (N, T, C), output tokens and prompt tokens.
            cells: (N, K, C), or (B, K, C) with ``spread``.
            cell_code: (K, C) position code.
            exists: (N, T) bool, False at padding, or None.
            spread: (N,) int64, image of each object, when ``cells`` are one an image.

        Returns:
            tokens (N, T, C) and cells (N, K, C).
        """
        code = tokens
        mask = None if exists is None else exists[:, None, None, :]
        for layer in self.layers:
            tokens, cells = layer(tokens, cells, code, cell_code, mask, spread)
            spread = None
        last = self.final_attn_token_to_image
        tokens = self.norm_final_attn(tokens + last(tokens + code, for_linear(cells + cell_code), for_linear(cells)))
        return tokens, cells
