"""Layers that several boxes of the network share."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of a (B, C, H, W) map.

    Args:
        channels: number of channels C.
        eps: added to the variance (SAM: 1e-6).
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W); shape and dtype stay."""
        # F.layer_norm is one fused kernel; the two permutes are views of channels-last memory.
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class MLPBlock(nn.Module):
    """Two linear layers with an activation between (SAM's names ``lin1``, ``lin2``).

    Args:
        dim: width of input and output.
        hidden_dim: width between.
        activation: class of the activation (encoder: GELU, decoder: ReLU).
        dropout: probability after each layer while training.
    """

    def __init__(
        self, dim: int, hidden_dim: int, activation: type[nn.Module] = nn.GELU, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden_dim)
        self.lin2 = nn.Linear(hidden_dim, dim)
        self.act = activation()
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., dim) to (..., dim)."""
        x = self.act(self.lin1(x))
        if self.training and self.dropout:
            x = F.dropout(x, self.dropout)
            return F.dropout(self.lin2(x), self.dropout)
        return self.lin2(x)


class MLP(nn.Module):
    """Linear layers with ReLU between: SAM's hypernetworks and IoU head (names ``layers.N``).

    Args:
        dim: input width.
        hidden_dim: width of the hidden layers.
        out_dim: output width.
        depth: number of linear layers.
    """

    def __init__(self, dim: int, hidden_dim: int, out_dim: int, depth: int) -> None:
        super().__init__()
        widths = [dim] + [hidden_dim] * (depth - 1) + [out_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., dim) to (..., out_dim)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)
