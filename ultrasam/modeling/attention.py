"""Attention with SAM's decomposed relative positions, fused, and the plain form beside it as its check.

The bias of a query on a key at grid cell (i, j) is ``rel_h[q, i] + rel_w[q, j]`` (Li et al. 2022, ViTDet).
Four ways to add it:

* ``plain``: as written, one matrix per head. The check.
* ``mask``: the bias as an additive mask of ``scaled_dot_product_attention``: best where grids are small (windows).
* ``folded``: exactly, without any matrix of queries x keys: queries ``[q * scale, rel_h, rel_w]``, keys
  ``[k, onehot(i), onehot(j)]``, scale 1. Flash attention then needs no mask, and no quadratic memory in training.
* ``chunked``: a block of queries at a time, so that its scores stay in the cache; inference on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def relative_table(rel_pos: Tensor, size: int) -> Tensor:
    """Return (size, size, D): row q, column k holds the embedding of offset q - k.

    Args:
        rel_pos: (L, D), embeddings of the offsets -(L - 1) / 2 ... (L - 1) / 2.
        size: cells along the axis; a table of another length is interpolated linearly.
    """
    wanted = 2 * size - 1
    if rel_pos.shape[0] != wanted:
        rel_pos = F.interpolate(rel_pos.T[None].float(), size=wanted, mode="linear")[0].T.to(rel_pos.dtype)
    index = torch.arange(size, device=rel_pos.device)
    return rel_pos[index[:, None] - index[None, :] + size - 1]


def relative_bias(q: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the two parts of the bias.

    Args:
        q: (B, heads, h * w, D) unscaled queries.
        rel_pos_h: (2 h - 1, D) table along y.
        rel_pos_w: (2 w - 1, D) table along x.
        grid: (h, w).

    Returns:
        (B, heads, h * w, h) and (B, heads, h * w, w).
    """
    height, width = grid
    cells = q.unflatten(2, grid)
    table_h = relative_table(rel_pos_h, height).to(q.dtype)
    table_w = relative_table(rel_pos_w, width).to(q.dtype)
    rel_h = torch.einsum("bnhwd,hkd->bnhwk", cells, table_h)
    rel_w = torch.einsum("bnhwd,wkd->bnhwk", cells, table_w)
    return rel_h.flatten(2, 3), rel_w.flatten(2, 3)


def attend_plain(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """Attend from (B, heads, T, D) with the full bias matrix."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    bias = rel_h[..., :, None] + rel_w[..., None, :]
    return (scores + bias.flatten(-2)).softmax(dim=-1) @ v


def attend_mask(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """As ``attend_plain`` through a fused kernel with the bias as its mask."""
    bias = (rel_h[..., :, None] + rel_w[..., None, :]).flatten(-2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def attend_folded(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """As ``attend_plain`` with the bias folded into longer queries and keys."""
    height, width = rel_h.shape[-1], rel_w.shape[-1]
    dim = q.shape[-1]
    cell = torch.arange(height * width, device=q.device)
    rows = F.one_hot(cell // width, height).to(k.dtype)
    columns = F.one_hot(cell % width, width).to(k.dtype)
    codes = torch.cat([rows, columns], dim=1).expand(*k.shape[:2], -1, -1)
    long_q = torch.cat([q * dim**-0.5, rel_h, rel_w], dim=-1)
    long_k = torch.cat([k, codes], dim=-1)
    # Flash kernels want values as wide as keys.
    long_v = F.pad(v, (0, height + width))
    return F.scaled_dot_product_attention(long_q, long_k, long_v, scale=1.0)[..., :dim]


def attend_chunked(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, rows: int = 256) -> Tensor:
    """As ``attend_plain``, ``rows`` queries at a time; for inference (in-place, no gradient)."""
    height, width = rel_h.shape[-1], rel_w.shape[-1]
    batch, heads, count, dim = q.shape
    out = torch.empty_like(q)
    q = q * dim**-0.5
    for image in range(batch):
        for head in range(heads):
            keys, values = k[image, head].T, v[image, head]
            for start in range(0, count, rows):
                part = slice(start, start + rows)
                scores = (q[image, head, part] @ keys).view(-1, height, width)
                scores += rel_h[image, head, part, :, None]
                scores += rel_w[image, head, part, None, :]
                torch.mm(scores.flatten(1).softmax(dim=-1), values, out=out[image, head, part])
    return out


def head_selector(heads: int, width: int, like: Tensor) -> Tensor:
    """Return (heads, width) ones where a channel belongs to a head."""
    return torch.eye(heads, dtype=like.dtype, device=like.device).repeat_interleave(width // heads, dim=1)


def attend_from_few(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attend from a few tokens to many cells without moving the cells' heads apart.

    Each query becomes one row a head, zero outside its head's channels, so keys and values stay (N, K, C). That is
    more arithmetic and far less memory traffic; the fused CPU kernel's backward pass takes three times as long.

    Args:
        q: (N, T, C), T small.
        k: (N, K, C).
        v: (N, K, C).
        heads: number of heads.

    Returns:
        (N, T, C).
    """
    width = q.shape[-1]
    select = head_selector(heads, width, q)
    rows = (q[:, :, None] * (select * (width // heads) ** -0.5)).flatten(1, 2)
    out = (rows @ k.transpose(1, 2)).softmax(dim=-1) @ v
    return (out.unflatten(1, (q.shape[1], heads)) * select.to(out.dtype)).sum(dim=2)


def attend_to_few(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Attend from many cells to a few tokens; the counterpart of ``attend_from_few``.

    Args:
        q: (N, K, C).
        k: (N, T, C), T small.
        v: (N, T, C).
        heads: number of heads.
        mask: (N, 1, 1, T) bool, False where a token does not exist.

    Returns:
        (N, K, C).
    """
    width, count = k.shape[-1], k.shape[1]
    select = head_selector(heads, width, k)
    rows = (k[:, :, None] * (select * (width // heads) ** -0.5)).flatten(1, 2)
    scores = (q @ rows.transpose(1, 2)).unflatten(-1, (count, heads))
    if mask is not None:
        scores = scores.masked_fill(~mask.transpose(-1, -2), float("-inf"))
    values = (v[:, :, None] * select.to(v.dtype)).flatten(1, 2)
    return scores.softmax(dim=-2).flatten(-2).to(values.dtype) @ values
