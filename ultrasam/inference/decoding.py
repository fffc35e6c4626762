"""Decoding of prompts of one encoded image, fast where there is no gradient: equal to ``Sam.decode`` up to rounding.

On a CPU the mask decoder's time goes into linear layers over the cells of the image embedding. Two identities save
most of that when an object has few tokens (T tokens in H heads are T * H rows, K cells have C channels):

* ``rows @ (cells @ W.T).T`` is ``(rows @ W) @ cells.T``: the tokens are projected instead of the cells, and values the
  same way after they were summed. T * H is 56 for a box, C is 256.
* The first layer's cells are the embedding plus a mask prompt of 16 channels through one linear layer, so the
  projections of the embedding are made once for all objects and passes, and a mask prompt adds a product of rank 16.

Objects go through in small chunks and their cells in strips, which are still in the cache when they are used again
(``ultrasam.inference.cells``); cells are kept in arrays that all chunks share, because touching fresh memory takes
longer than the arithmetic on it. Many objects are shared out among the threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ultrasam.inference.cells import Arrays, FirstCells, ImageCells, Update, walk
from ultrasam.inference.threads import share_out
from ultrasam.modeling.common import LayerNorm2d
from ultrasam.modeling.mask_decoder import MULTI, SINGLE
from ultrasam.modeling.prompt_encoder import Prompts
from ultrasam.modeling.sam import Sam
from ultrasam.modeling.transformer import FEW, TwoWayAttentionBlock

# Bytes of the cells of a chunk of objects.
CHUNK_BYTES = 20 * 2**20
# Cells updated or upscaled at a time, at least a row of them: 1 MB of cells, 2 MB of upscaled numbers.
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
        self._image: ImageCells | None = None

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
            self._image = ImageCells(self.sam, self.embedding)
        outputs = MULTI if multimask else SINGLE

        def decode(rows: slice) -> tuple[Tensor, Tensor]:
            return self._chunks(prompts.select(rows), outputs, best)

        logits, iou = zip(*share_out(decode, len(prompts)), strict=True)
        return torch.cat(logits), torch.cat(iou)

    def _chunks(self, prompts: Prompts, outputs: slice, best: bool) -> tuple[Tensor, Tensor]:
        """Decode N objects, all with a mask prompt or none, a few at a time."""
        chunk = min(self._chunk(), len(prompts))
        cells = self.height * self.width
        strip = min(max(STRIP_CELLS, self.width), cells)
        with _arrays(chunk, cells, strip, self.embedding.shape[1]) as arrays:
            parts = [
                self._part(prompts.select(slice(start, start + chunk)), outputs, best, arrays)
                for start in range(0, len(prompts), chunk)
            ]
        logits, iou = zip(*parts, strict=True)
        return torch.cat(logits), torch.cat(iou)

    def _part(self, prompts: Prompts, outputs: slice, best: bool, arrays: Arrays) -> tuple[Tensor, Tensor]:
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
        tokens = self._transform(tokens, FirstCells(self._image, prompts.masks), exists, used, arrays)
        iou = decoder.iou_prediction_head(tokens[:, 0])[:, outputs]
        kernels = torch.stack(
            [decoder.output_hypernetworks_mlps[number](tokens[:, 1 + row]) for row, number in enumerate(numbers)], dim=1
        )
        if best:
            index = iou.argmax(dim=1, keepdim=True)
            iou, kernels = iou.take_along_dim(index, 1), kernels.take_along_dim(index[..., None], 1)
        return self._paint(kernels, arrays), iou

    def _paint(self, kernels: Tensor, arrays: Arrays) -> Tensor:
        """As ``MaskDecoder.paint``, some rows of one object's cells at a time, so that they stay in the cache."""
        first, norm, _, second, _ = self.sam.mask_decoder.output_upscaling
        assert isinstance(first, nn.ConvTranspose2d) and isinstance(second, nn.ConvTranspose2d)
        assert isinstance(norm, LayerNorm2d)
        (weight_1, bias_1), (weight_2, bias_2) = _as_linear(first), _as_linear(second)
        cells = arrays.cells[: len(kernels)]
        # A pixel's row is (row of cells, 2 of the first step, 2 of the second), its column likewise.
        out = cells.new_empty(len(cells), kernels.shape[1], self.height, 2, 2, self.width, 2, 2)
        rows = len(arrays.once) // self.width
        for number, kernel in enumerate(kernels.transpose(1, 2)):
            strips = zip(cells[number].split(rows * self.width), out[number].split(rows, dim=1), strict=True)
            for strip, target in strips:
                x = torch.addmm(bias_1, strip, weight_1, out=arrays.once[: len(strip)]).view(4 * len(strip), -1)
                x = torch.ops.aten.gelu_(F.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, norm.eps))
                x = torch.addmm(bias_2, x, weight_2, out=arrays.twice[: len(x)])
                masks = torch.ops.aten.gelu_(x).view(4 * len(x), -1) @ kernel
                target.copy_(masks.view(-1, self.width, 2, 2, 2, 2, kernel.shape[1]).permute(6, 0, 2, 4, 1, 3, 5))
        return out.view(*out.shape[:2], 4 * self.height, 4 * self.width)

    def _transform(
        self, tokens: Tensor, first: FirstCells, exists: Tensor | None, used: list[int], arrays: Arrays
    ) -> Tensor:
        """Run the two-way transformer: the ``used`` of the tokens (n, U, C). The cells lie in ``arrays`` then."""
        transformer = self.sam.mask_decoder.transformer
        layers = [layer for layer in transformer.layers if isinstance(layer, TwoWayAttentionBlock)]
        code = tokens
        key_mask = None if exists is None else exists[:, None, None, :]
        tokens = attended_to_themselves(layers[0], tokens, code, key_mask)
        seen = first.gather(tokens + code)
        for number, layer in enumerate(layers):
            tokens = layer.norm2(tokens + seen)
            identity = 2 * tokens if layer.mlp_residual == "double" else tokens
            tokens = layer.norm3(identity + layer.mlp(tokens))
            to_tokens = layer.cross_attn_image_to_token
            update = Update(to_tokens, tokens + code, tokens, exists, first.image, None if number else first)
            if number + 1 < len(layers):
                following = layers[number + 1]
                tokens = attended_to_themselves(following, tokens, code, key_mask)
                attention = following.cross_attn_token_to_image
            else:
                tokens, code = tokens[:, used], code[:, used]
                attention = transformer.final_attn_token_to_image
            seen = walk(update, layer.norm4, attention, tokens + code, arrays)
        return transformer.norm_final_attn(tokens + seen)


def attended_to_themselves(layer: TwoWayAttentionBlock, tokens: Tensor, code: Tensor, mask: Tensor | None) -> Tensor:
    """Return tokens (n, T, C) after a layer's self attention and first normalisation."""
    if layer.first:
        return layer.norm1(layer.self_attn(tokens, tokens, tokens, mask))
    return layer.norm1(tokens + layer.self_attn(tokens + code, tokens + code, tokens, mask))


@contextmanager
def _arrays(count: int, cells: int, strip: int, channels: int) -> Iterator[Arrays]:
    """Lend arrays of float32 with any content to one call, for ``count`` objects of ``cells`` cells."""
    # Taking and returning are single operations of a list, so two threads never get the same one.
    try:
        found = _spare.pop()
    except IndexError:
        found = torch.empty(0)
    try:
        sizes = [count * cells * channels, strip * channels, 2 * strip * channels]
        if found.numel() < sum(sizes):
            found = torch.empty(sum(sizes))
        own, once, twice = found[: sum(sizes)].split(sizes)
        yield Arrays(own.view(count, cells, channels), once.view(-1, channels), twice.view(-1, channels // 2))
    finally:
        if len(_spare) < SPARE_ARRAYS:
            _spare.append(found)


def _as_linear(layer: nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    """Return a 2 x 2, stride 2 transposed convolution as weight (in, 4 out) and bias (4 out) for each cell."""
    assert layer.bias is not None
    return layer.weight.permute(0, 2, 3, 1).flatten(1), layer.bias.repeat(4)
