"""Decoding of prompts of one encoded image, fast where there is no gradient: equal to ``Sam.decode`` up to rounding.

On a CPU the mask decoder's time goes into linear layers over the cells of the image embedding. Two identities save
most of that when an object has few tokens (T tokens in H heads are T * H rows, K cells have C channels):

* ``rows @ (cells @ W.T).T`` is ``(rows @ W) @ cells.T``: the tokens are projected instead of the cells, and values the
  same way after they were summed. T * H is 56 for a box, C is 256.
* The first layer's cells are the embedding plus a mask prompt of 16 channels through one linear layer, so the
  projections of the embedding are made once for all objects and passes, and a mask prompt adds a product of rank 16.

Objects go through in small chunks and their cells in strips, which are still in the cache when they are used again;
cells are kept in arrays that all chunks share, because touching fresh memory takes longer than the arithmetic on it.
Many objects are shared out among the threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ultrasam.inference.threads import share_out
from ultrasam.modeling.attention import head_selector
from ultrasam.modeling.common import LayerNorm2d
from ultrasam.modeling.mask_decoder import MULTI, SINGLE
from ultrasam.modeling.prompt_encoder import Prompts
from ultrasam.modeling.sam import Sam
from ultrasam.modeling.transformer import FEW, Attention, TwoWayAttentionBlock

# Bytes of the cells of a chunk of objects.
CHUNK_BYTES = 20 * 2**20
# Cells updated or upscaled at a time: 1 MB of cells, 2 MB of upscaled numbers.
STRIP_CELLS = 1024
# Objects decoded at a time on a GPU.
GPU_CHUNK = 32
# Arrays that wait for the next call, shared by all images; one more for a second thread.
SPARE_ARRAYS = 2
_spare: list[Tensor] = []


class Decoder:
    """Decodes prompts of one image; what does not depend on the prompt is computed once, when it is first needed.

    Args:
        sam: the network, in evaluation mode.
        embedding: (1, C, h, w) float32 on the network's device.
    """

    def __init__(self, sam: Sam, embedding: Tensor) -> None:
        self.sam = sam
        self.embedding = embedding
        self.height, self.width = embedding.shape[-2:]
        self._image: _Image | None = None

    @torch.no_grad()
    def decode(self, prompts: Prompts, multimask: bool, best: bool) -> tuple[Tensor, Tensor]:
        """Decode N objects.

        Args:
            prompts: all of this image.
            multimask: masks 1 to 3, or mask 0 alone.
            best: return the mask of the highest predicted IoU only.

        Returns:
            logits (N, M, 4h, 4w) and predicted IoU (N, M); M is 1 with ``best``.
        """
        tokens = self.sam.mask_decoder.mask_count + 1 + prompts.labels.shape[1]
        plain = self.embedding.device.type == "cpu" and self.embedding.dtype == torch.float32
        if not plain or tokens > FEW or len(prompts) == 0:
            return self._reference(prompts, multimask, best)
        if prompts.masks is None or prompts.has_mask is None:
            return self._fast(prompts, multimask, best)
        # Objects with and without a mask prompt differ in their first layer.
        order = torch.cat([torch.nonzero(prompts.has_mask)[:, 0], torch.nonzero(~prompts.has_mask)[:, 0]])
        count = int(prompts.has_mask.sum())
        parts = []
        for rows, masked in ((order[:count], True), (order[count:], False)):
            if len(rows):
                part = prompts.select(rows)
                part = Prompts(part.coords, part.labels, part.image_index, part.masks if masked else None)
                parts.append(self._fast(part, multimask, best))
        logits, iou = (torch.cat(pieces) for pieces in zip(*parts, strict=True))
        back = order.argsort()
        return logits[back], iou[back]

    def _reference(self, prompts: Prompts, multimask: bool, best: bool) -> tuple[Tensor, Tensor]:
        """Decode with the network's own forward pass."""
        chunk = GPU_CHUNK if self.embedding.is_cuda else self._chunk()
        logits, iou = self.sam.decode(self.embedding, prompts, multimask, chunk)
        if not best:
            return logits, iou
        index = iou.argmax(dim=1, keepdim=True)
        return logits.take_along_dim(index[..., None, None], 1), iou.take_along_dim(index, 1)

    def _chunk(self) -> int:
        """Return how many objects go through at a time."""
        return max(1, CHUNK_BYTES // (self.embedding[0].numel() * 4))

    def _fast(self, prompts: Prompts, multimask: bool, best: bool) -> tuple[Tensor, Tensor]:
        if self._image is None:
            self._image = _Image(self.sam, self.embedding)
        outputs = MULTI if multimask else SINGLE

        def decode(rows: slice) -> tuple[Tensor, Tensor]:
            return self._chunks(prompts.select(rows), outputs, best)

        logits, iou = zip(*share_out(decode, len(prompts)), strict=True)
        return torch.cat(logits), torch.cat(iou)

    def _chunks(self, prompts: Prompts, outputs: slice, best: bool) -> tuple[Tensor, Tensor]:
        """Decode N objects, all with a mask prompt or none, a few at a time."""
        chunk = min(self._chunk(), len(prompts))
        with _arrays(chunk, self.height * self.width, self.embedding.shape[1]) as arrays:
            parts = [
                self._part(prompts.select(slice(start, start + chunk)), outputs, best, arrays)
                for start in range(0, len(prompts), chunk)
            ]
        logits, iou = zip(*parts, strict=True)
        return torch.cat(logits), torch.cat(iou)

    def _part(self, prompts: Prompts, outputs: slice, best: bool, arrays: _Arrays) -> tuple[Tensor, Tensor]:
        """Decode one chunk, all objects with a mask prompt or none; ``arrays`` are written over."""
        assert self._image is not None
        decoder, encoder = self.sam.mask_decoder, self.sam.prompt_encoder
        first = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        prompt_tokens, exists, _ = encoder(Prompts(prompts.coords, prompts.labels, prompts.image_index))
        tokens = torch.cat([first.expand(len(prompts), -1, -1), prompt_tokens], dim=1)
        if exists is not None:
            exists = F.pad(exists, (len(first), 0), value=True)
        numbers = range(decoder.mask_count)[outputs]
        # The IoU token is the first one, mask tokens follow.
        used = [0, *(1 + number for number in numbers)]
        tokens, cells = self._transform(tokens, _FirstCells(self._image, prompts.masks), exists, used, arrays)
        iou = decoder.iou_prediction_head(tokens[:, 0])[:, outputs]
        kernels = torch.stack(
            [decoder.output_hypernetworks_mlps[number](tokens[:, 1 + row]) for row, number in enumerate(numbers)], dim=1
        )
        if best:
            index = iou.argmax(dim=1, keepdim=True)
            iou, kernels = iou.take_along_dim(index, 1), kernels.take_along_dim(index[..., None], 1)
        return self._paint(cells, kernels, arrays), iou

    def _paint(self, cells: Tensor, kernels: Tensor, arrays: _Arrays) -> Tensor:
        """As ``MaskDecoder.paint``, some rows of one object's cells at a time, so that they stay in the cache."""
        first, norm, _, second, _ = self.sam.mask_decoder.output_upscaling
        assert isinstance(first, nn.ConvTranspose2d) and isinstance(second, nn.ConvTranspose2d)
        assert isinstance(norm, LayerNorm2d)
        (weight_1, bias_1), (weight_2, bias_2) = _as_linear(first), _as_linear(second)
        out = cells.new_empty(len(cells), kernels.shape[1], 4 * self.height, 4 * self.width)
        step = max(1, STRIP_CELLS // self.width)
        for number, (grid, kernel) in enumerate(zip(cells.unflatten(1, (self.height, -1)), kernels, strict=True)):
            for top in range(0, self.height, step):
                strip = grid[top : top + step].flatten(0, 1)
                x = torch.addmm(bias_1, strip, weight_1.T, out=arrays.once[: len(strip)])
                x = F.layer_norm(x.view(-1, *norm.weight.shape), norm.weight.shape, norm.weight, norm.bias, norm.eps)
                x = torch.ops.aten.gelu_(x)
                x = torch.addmm(bias_2, x, weight_2.T, out=arrays.twice[: len(x)])
                x = torch.ops.aten.gelu_(x)
                # (rows, w, 2 x 2 of the first step, 2 x 2 of the second, M)
                masks = (x.view(-1, kernel.shape[1]) @ kernel.T).view(-1, self.width, 2, 2, 2, 2, len(kernel))
                masks = masks.permute(6, 0, 2, 4, 1, 3, 5).flatten(4, 6).flatten(1, 3)
                out[number, :, 4 * top : 4 * top + masks.shape[1]] = masks
        return out

    def _transform(
        self, tokens: Tensor, first: _FirstCells, exists: Tensor | None, used: list[int], arrays: _Arrays
    ) -> tuple[Tensor, Tensor]:
        """Run the two-way transformer: the ``used`` of the tokens (n, U, C), and cells (n, K, C)."""
        assert self._image is not None
        transformer = self.sam.mask_decoder.transformer
        code = tokens
        key_mask = None if exists is None else exists[:, None, None, :]
        cells: _Cells = first
        for layer in transformer.layers:
            assert isinstance(layer, TwoWayAttentionBlock)
            if layer.first:
                tokens = layer.self_attn(tokens, tokens, tokens, key_mask)
            else:
                tokens = tokens + layer.self_attn(tokens + code, tokens + code, tokens, key_mask)
            tokens = layer.norm1(tokens)
            tokens = layer.norm2(tokens + _to_image(layer.cross_attn_token_to_image, tokens + code, cells))
            identity = 2 * tokens if layer.mlp_residual == "double" else tokens
            tokens = layer.norm3(identity + layer.mlp(tokens))
            weights, rows = _to_tokens(layer.cross_attn_image_to_token, tokens + code, tokens, cells, exists)
            cells = self._updated(cells, weights, rows, layer.norm4, arrays)
        assert isinstance(cells, _ObjectCells)
        last = transformer.final_attn_token_to_image
        tokens, code = tokens[:, used], code[:, used]
        tokens = transformer.norm_final_attn(tokens + _to_image(last, tokens + code, cells))
        return tokens, cells.cells

    def _updated(
        self, cells: _Cells, weights: Tensor, rows: Tensor, norm: nn.LayerNorm, arrays: _Arrays
    ) -> _ObjectCells:
        """Return ``norm(cells + weights.T @ rows)``, written over what was there for the objects before.

        Args:
            cells: of n objects.
            weights: (n, T * H, K).
            rows: (n, T * H, C).
            norm: over C.
            arrays: written over; they hold cells that an earlier layer made.
        """
        assert self._image is not None
        count, _, total = weights.shape
        new, coded = arrays.cells[:count], arrays.coded[:count]
        for number in range(count):
            for start in range(0, total, STRIP_CELLS):
                part = slice(start, start + STRIP_CELLS)
                changed = cells.plus(number, part, weights[number, :, part].T, rows[number], new[number, part])
                normed = F.layer_norm(changed, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
                new[number, part] = normed
                torch.add(normed, self._image.code[part], out=coded[number, part])
        return _ObjectCells(new, coded)


@dataclass
class _Arrays:
    """Memory that the objects of a call share.

    Attributes:
        cells: (n, K, C).
        coded: (n, K, C), the same with the position code.
        once: (strip, C), cells of a strip upscaled once: 4 positions of C / 4 channels.
        twice: (4 strip, C / 2), upscaled twice: 4 positions of C / 8 channels.
    """

    cells: Tensor
    coded: Tensor
    once: Tensor
    twice: Tensor


@contextmanager
def _arrays(count: int, cells: int, channels: int) -> Iterator[_Arrays]:
    """Lend arrays of float32 with any content to one call, for ``count`` objects of ``cells`` cells."""
    # Taking and returning are single operations of a list, so two threads never get the same one.
    try:
        found = _spare.pop()
    except IndexError:
        found = torch.empty(0)
    try:
        sizes = [count * cells * channels] * 2 + [STRIP_CELLS * channels, 2 * STRIP_CELLS * channels]
        if found.numel() < sum(sizes):
            found = torch.empty(sum(sizes))
        own, coded, once, twice = found[: sum(sizes)].split(sizes)
        shape = (count, cells, channels)
        yield _Arrays(own.view(shape), coded.view(shape), once.view(-1, channels), twice.view(-1, channels // 2))
    finally:
        if len(_spare) < SPARE_ARRAYS:
            _spare.append(found)


class _Image:
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


class _Cells:
    """Cells of n objects, as the cross attentions see them."""

    def against_keys(self, attention: Attention, q: Tensor) -> Tensor:
        """Return scores (n, T * H, K) of projected queries q (n, T, d), up to a constant of each row."""
        raise NotImplementedError

    def weighted_values(self, attention: Attention, weights: Tensor) -> Tensor:
        """Return (n, T, d): the cells' values summed by ``weights`` (n, T * H, K), which are 1 in sum over K."""
        raise NotImplementedError

    def against_queries(self, attention: Attention, k: Tensor) -> Tensor:
        """Return scores (n, T * H, K) of the cells' queries on projected keys k (n, T, d)."""
        raise NotImplementedError

    def plus(self, number: int, part: slice, weights: Tensor, rows: Tensor, out: Tensor) -> Tensor:
        """Return a part (k, C) of one object's cells plus ``weights @ rows``: (k, T * H) and (T * H, C).

        ``out`` (k, C) is written over and returned; an earlier layer's cells lie there already.
        """
        raise NotImplementedError


@dataclass
class _ObjectCells(_Cells):
    """Cells (n, K, C) that differ from object to object, and the same with the position code added."""

    cells: Tensor
    coded: Tensor

    def against_keys(self, attention: Attention, q: Tensor) -> Tensor:
        rows = _per_head(q * _scale(attention, q), attention.k_proj.weight, attention.heads)
        return rows @ self.coded.transpose(1, 2)

    def weighted_values(self, attention: Attention, weights: Tensor) -> Tensor:
        heads = attention.heads
        summed = (weights @ self.cells).unflatten(1, (-1, heads))
        by_head = attention.v_proj.weight.unflatten(0, (heads, -1))
        return torch.einsum("nthc,hdc->nthd", summed, by_head).flatten(2) + attention.v_proj.bias

    def against_queries(self, attention: Attention, k: Tensor) -> Tensor:
        k = k * _scale(attention, k)
        rows = _per_head(k, attention.q_proj.weight, attention.heads)
        shift = (k * attention.q_proj.bias).unflatten(-1, (attention.heads, -1)).sum(-1).flatten(1)
        return (rows @ self.coded.transpose(1, 2)).add_(shift[..., None])

    def plus(self, number: int, part: slice, weights: Tensor, rows: Tensor, out: Tensor) -> Tensor:
        return out.addmm_(weights, rows)


class _FirstCells(_Cells):
    """Cells of the first layer: embedding + constant + mask features (n, 16, K) through one linear layer.

    Args:
        image: what is shared.
        masks: (n, 1, 4h, 4w) mask prompts, or None.
    """

    def __init__(self, image: _Image, masks: Tensor | None) -> None:
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

    def against_keys(self, attention: Attention, q: Tensor) -> Tensor:
        rows = _blocked(q * _scale(attention, q), attention.heads)
        scores = rows @ self.image.keys.T
        if self.features is not None:
            scores.baddbmm_(rows @ (attention.k_proj.weight @ self.weight), self.features)
        return scores

    def weighted_values(self, attention: Attention, weights: Tensor) -> Tensor:
        summed = weights @ self.image.values
        if self.features is not None:
            mine = weights @ self.features.transpose(1, 2)
            summed = summed + mine @ (attention.v_proj.weight @ self.weight).T
        select = head_selector(attention.heads, summed.shape[-1], summed)
        out = (summed.unflatten(1, (-1, attention.heads)) * select).sum(2)
        return out + attention.v_proj(self.constant)

    def against_queries(self, attention: Attention, k: Tensor) -> Tensor:
        rows = _blocked(k * _scale(attention, k), attention.heads)
        scores = rows @ self.image.queries.T
        if self.features is not None:
            scores.baddbmm_(rows @ (attention.q_proj.weight @ self.weight), self.features)
        return scores.add_((rows @ attention.q_proj(self.constant))[..., None])

    def plus(self, number: int, part: slice, weights: Tensor, rows: Tensor, out: Tensor) -> Tensor:
        # As in ``_to_tokens``: the weights of a cell are 1 in sum for each head.
        rows = rows + self.constant / self.image.to_tokens.heads
        torch.addmm(self.image.cells[part], weights, rows, out=out)
        if self.features is not None:
            out.addmm_(self.features[number, :, part].T, self.weight.T)
        return out


def _to_image(attention: Attention, queries: Tensor, cells: _Cells) -> Tensor:
    """Attend from tokens (n, T, C) to cells: (n, T, C)."""
    weights = cells.against_keys(attention, attention.q_proj(queries)).softmax(dim=-1)
    return attention.out_proj(cells.weighted_values(attention, weights))


def _to_tokens(
    attention: Attention, keys: Tensor, values: Tensor, cells: _Cells, exists: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Attend from cells to tokens (n, T, C).

    Returns:
        weights (n, T * H, K) and rows (n, T * H, C), whose product is what each cell receives.
    """
    scores = cells.against_queries(attention, attention.k_proj(keys)).unflatten(1, (-1, attention.heads))
    if exists is not None:
        scores = scores.masked_fill(~exists[..., None, None], float("-inf"))
    # Softmax along a dimension that is not the last runs over whole vectors of cells.
    weights = scores.flatten(2).softmax(dim=1).unflatten(2, (attention.heads, -1)).flatten(1, 2)
    by_head = attention.out_proj.weight.T.unflatten(0, (attention.heads, -1))
    v = attention.v_proj(values).unflatten(-1, (attention.heads, -1))
    # A cell's weights are 1 in sum for each head, so a part of the bias in every row adds up to all of it.
    rows = torch.einsum("nthd,hdc->nthc", v, by_head) + attention.out_proj.bias / attention.heads
    return weights, rows.flatten(1, 2)


def _as_linear(layer: nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a 2 x 2, stride 2 transposed convolution as a linear layer on each cell."""
    assert layer.bias is not None
    return layer.weight.permute(2, 3, 1, 0).flatten(0, 2), layer.bias.repeat(4)


def _scale(attention: Attention, x: Tensor) -> float:
    return float((x.shape[-1] // attention.heads) ** -0.5)


def _blocked(x: Tensor, heads: int) -> Tensor:
    """Turn (n, T, d) into (n, T * H, d), row (t, h) zero outside of the channels of head h."""
    return (x[:, :, None] * head_selector(heads, x.shape[-1], x)).flatten(1, 2)


def _per_head(x: Tensor, weight: Tensor, heads: int) -> Tensor:
    """Project (n, T, d) by the rows (d, C) of each head alone: (n, T * H, C)."""
    by_head = weight.unflatten(0, (heads, -1))
    return torch.einsum("nthd,hdc->nthc", x.unflatten(-1, (heads, -1)), by_head).flatten(1, 2)
