"""Cells of an image embedding in the decoder's cross attentions: each layer walks over them once, strip by strip.

What a layer adds to a cell depends on that cell and the tokens alone, and the tokens' next attention to the image needs
only sums over its cells. So a strip is updated, normalised and summed while it is in the cache (Milakov and Gimelshein
2018, "Online normalizer calculation for softmax"), and cells travel to memory and back once a layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ultrasam.modeling.attention import head_selector
from ultrasam.modeling.sam import Sam
from ultrasam.modeling.transformer import Attention, TwoWayAttentionBlock


@dataclass
class Arrays:
    """Memory that the objects of a call share.

    Attributes:
        cells: (n, K, C).
        once: (strip, C), scratch; also cells of a strip upscaled once: 4 positions of C / 4 channels.
        twice: (4 strip, C / 2), upscaled twice: 4 positions of C / 8 channels.
    """

    cells: Tensor
    once: Tensor
    twice: Tensor


class ImageCells:
    """What the first layer needs of an image, whatever the prompt.

    Attributes:
        cells: (K, C) of the embedding.
        code: (K, C) position code.
        keys: (K, d) projected cells plus code, without bias, which softmax over cells does not see.
        values: (K, d) projected cells, without bias.
        queries: (K, d) projected cells plus code, without bias.
    """

    def __init__(self, sam: Sam, embedding: Tensor) -> None:
        layer = sam.mask_decoder.transformer.layers[0]
        assert isinstance(layer, TwoWayAttentionBlock)
        self.sam = sam
        self.to_image, self.to_tokens = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
        self.cells = embedding[0].flatten(1).T.contiguous()
        self.code = sam.prompt_encoder.dense_position_code().to(self.cells.dtype)
        coded = self.cells + self.code
        self.keys = F.linear(coded, self.to_image.k_proj.weight)
        self.values = F.linear(self.cells, self.to_image.v_proj.weight)
        self.queries = F.linear(coded, self.to_tokens.q_proj.weight)


class FirstCells:
    """Cells of the first layer: embedding + constant + mask features (n, 16, K) through one linear layer.

    Args:
        image: what is shared.
        masks: (n, 1, 4h, 4w) mask prompts, or None.
    """

    def __init__(self, image: ImageCells, masks: Tensor | None) -> None:
        self.image = image
        encoder = image.sam.prompt_encoder
        self.features: Tensor | None = None
        if masks is None:
            self.constant = encoder.no_mask_embed.weight[0]
            return
        last = encoder.mask_downscaling[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        self.features = encoder.mask_downscaling[:-1](masks).flatten(2)
        self.weight, self.constant = last.weight.flatten(1), last.bias

    def gather(self, queries: Tensor) -> Tensor:
        """Attend from tokens (n, T, C) to these cells: (n, T, C)."""
        attention = self.image.to_image
        q = attention.q_proj(queries)
        rows = blocked(q * scale_of(attention, q), attention.heads)
        if self.features is None:
            summed = (rows @ self.image.keys.T).softmax(dim=-1) @ self.image.values
        else:
            mask_rows = rows @ (attention.k_proj.weight @ self.weight)
            mask_values = (attention.v_proj.weight @ self.weight).T
            summed = torch.empty_like(rows)
            for number, features in enumerate(self.features):
                scores = torch.addmm(rows[number] @ self.image.keys.T, mask_rows[number], features)
                weights = scores.softmax(dim=-1)
                torch.addmm(weights @ self.image.values, weights @ features.T, mask_values, out=summed[number])
        select = head_selector(attention.heads, summed.shape[-1], summed)
        out = (summed.unflatten(1, (-1, attention.heads)) * select).sum(2)
        return attention.out_proj(out + attention.v_proj(self.constant))


class Update:
    """What one layer adds to the cells of n objects: attention from each cell to the tokens.

    Args:
        attention: of the layer.
        keys: (n, T, C), tokens with their code.
        values: (n, T, C), tokens.
        exists: (n, T) bool, False at padding, or None.
        image: what is shared.
        first: cells of the first layer, where the shared ones serve; None in later layers.
    """

    def __init__(
        self,
        attention: Attention,
        keys: Tensor,
        values: Tensor,
        exists: Tensor | None,
        image: ImageCells,
        first: FirstCells | None,
    ) -> None:
        self.heads, self.exists, self.image, self.first = attention.heads, exists, image, first
        k = attention.k_proj(keys)
        k = k * scale_of(attention, k)
        # A cell's weights are 1 in sum for each head, so a part of the bias in every row adds up to all of it.
        bias: Tensor = attention.out_proj.bias
        if first is None:
            self.rows = per_head(k, attention.q_proj.weight, self.heads)
            self.shift = (k * attention.q_proj.bias).unflatten(-1, (self.heads, -1)).sum(-1).flatten(1)[..., None]
        else:
            self.rows = blocked(k, self.heads)
            self.shift = (self.rows @ attention.q_proj(first.constant))[..., None]
            bias = bias + first.constant
            if first.features is not None:
                self.mask_rows = self.rows @ (attention.q_proj.weight @ first.weight)
        by_head = attention.out_proj.weight.T.unflatten(0, (self.heads, -1))
        v = attention.v_proj(values).unflatten(-1, (self.heads, -1))
        self.added = (torch.einsum("nthd,hdc->nthc", v, by_head) + bias / self.heads).flatten(1, 2)

    def apply(self, number: int, part: slice, cells: Tensor, scratch: Tensor) -> None:
        """Add to a part (k, C) of one object's cells, in place; those of the first layer are put there."""
        first, image = self.first, self.image
        if first is None:
            coded = torch.add(cells, image.code[part], out=scratch)
            weights = self._weights(number, torch.addmm(self.shift[number], self.rows[number], coded.T))
            cells.addmm_(weights.T, self.added[number])
            return
        scores = torch.addmm(self.shift[number], self.rows[number], image.queries[part].T)
        if first.features is not None:
            scores.addmm_(self.mask_rows[number], first.features[number, :, part])
        torch.addmm(image.cells[part], self._weights(number, scores).T, self.added[number], out=cells)
        if first.features is not None:
            cells.addmm_(first.features[number, :, part].T, first.weight.T)

    def _weights(self, number: int, scores: Tensor) -> Tensor:
        """Return the softmax over tokens of scores (T * H, k) of one object."""
        by_token = scores.view(-1, self.heads * scores.shape[1])
        if self.exists is not None:
            by_token.masked_fill_(~self.exists[number, :, None], float("-inf"))
        # Softmax along a dimension that is not the last runs over whole vectors of cells.
        return by_token.softmax(dim=0).view_as(scores)


class Gathering:
    """Attention from the tokens of one object to its cells, of which a strip comes at a time.

    Args:
        rows: (T * H, C), the tokens' queries in the space of the cells.
    """

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self.top = rows.new_full((len(rows), 1), float("-inf"))
        self.total = rows.new_zeros(len(rows), 1)
        self.sums = torch.zeros_like(rows)

    def add(self, coded: Tensor, cells: Tensor) -> None:
        """Take in a strip: (k, C) cells, and the same with their position code."""
        scores = self.rows @ coded.T
        top = torch.maximum(self.top, scores.amax(dim=1, keepdim=True))
        weights = scores.sub_(top).exp_()
        shrink = (self.top - top).exp_()
        self.total = self.total * shrink + weights.sum(dim=1, keepdim=True)
        self.sums.mul_(shrink).addmm_(weights, cells)
        self.top = top

    def mean(self) -> Tensor:
        """Return the cells' mean by their weights: (T * H, C)."""
        return self.sums / self.total


def walk(update: Update, norm: nn.LayerNorm, attention: Attention, queries: Tensor, arrays: Arrays) -> Tensor:
    """Update and normalise the cells of n objects in ``arrays``, and attend to them from tokens (n, T, C): (n, T, C).

    Args:
        update: of the layer.
        norm: of the layer, over C.
        attention: of the next layer.
        queries: (n, T, C), its tokens with their code.
        arrays: written over; from the second layer on they hold the cells.
    """
    q = attention.q_proj(queries)
    # The bias of the keys adds the same to all scores of a row.
    rows = per_head(q * scale_of(attention, q), attention.k_proj.weight, attention.heads)
    code = update.image.code
    means = []
    for number in range(len(queries)):
        gathering = Gathering(rows[number])
        for start in range(0, len(code), len(arrays.once)):
            part = slice(start, start + len(arrays.once))
            cells = arrays.cells[number, part]
            scratch = arrays.once[: len(cells)]
            update.apply(number, part, cells, scratch)
            normed = F.layer_norm(cells, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
            cells.copy_(normed)
            gathering.add(torch.add(normed, code[part], out=scratch), normed)
        means.append(gathering.mean())
    by_head = attention.v_proj.weight.unflatten(0, (attention.heads, -1))
    summed = torch.stack(means).unflatten(1, (-1, attention.heads))
    values = torch.einsum("nthc,hdc->nthd", summed, by_head).flatten(2) + attention.v_proj.bias
    return attention.out_proj(values)


def scale_of(attention: Attention, x: Tensor) -> float:
    """Return what scores of projected queries or keys (..., d) are multiplied by."""
    return float((x.shape[-1] // attention.heads) ** -0.5)


def blocked(x: Tensor, heads: int) -> Tensor:
    """Turn (n, T, d) into (n, T * H, d), row (t, h) zero outside of the channels of head h."""
    return (x[:, :, None] * head_selector(heads, x.shape[-1], x)).flatten(1, 2)


def per_head(x: Tensor, weight: Tensor, heads: int) -> Tensor:
    """Project (n, T, d) by the rows (d, C) of each head alone: (n, T * H, C)."""
    by_head = weight.unflatten(0, (heads, -1))
    return torch.einsum("nthd,hdc->nthc", x.unflatten(-1, (heads, -1)), by_head).flatten(1, 2)
