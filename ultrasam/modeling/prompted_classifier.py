"""Prompted classification (paper section 2.3, Figure 1d): the class of a prompted object, from tokens.

The mask decoder makes object tokens from the image embedding of the frozen encoder E_o and the prompt. A second
two-way transformer lets a classification token, these object tokens and the prompt tokens attend to the sum of E_o's
vision tokens and the global tokens of the trained encoder E_g. The final classification token, concatenated with the
image-level features z_g of E_g, gives the class.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ultrasam.modeling.prompt_encoder import Prompts
from ultrasam.modeling.sam import Sam
from ultrasam.modeling.transformer import TwoWayTransformer


@dataclass
class ObjectTokens:
    """What the head knows of N prompted objects.

    Attributes:
        tokens: (N, T, C), the mask decoder's output tokens and the prompt's; T may be 0.
        exists: (N, T) bool, False at padding; None where every token exists.
        image_index: (N,) int64, the image of the batch that each object lies in.
    """

    tokens: Tensor
    exists: Tensor | None
    image_index: Tensor

    def __len__(self) -> int:
        return int(self.tokens.shape[0])

    def part(self, start: int, stop: int) -> ObjectTokens:
        """Return objects ``start`` to ``stop``."""
        exists = None if self.exists is None else self.exists[start:stop]
        return ObjectTokens(self.tokens[start:stop], exists, self.image_index[start:stop])


def decoded_tokens(sam: Sam, embeddings: Tensor, prompts: Prompts) -> Tensor:
    """Return the mask decoder's output tokens of N objects after its transformer: (N, 1 + masks, C), IoU token first.

    They are what masks and IoUs are made from; no mask is painted here.

    Args:
        sam: prompt encoder and mask decoder.
        embeddings: (B, C, h, w) of the images.
        prompts: of the objects; T = 0 tokens decodes without a prompt.
    """
    decoder = sam.mask_decoder
    tokens, exists, dense = sam.prompt_encoder(prompts)
    first = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).expand(len(tokens), -1, -1)
    count = first.shape[1]
    tokens = torch.cat([first.to(tokens.dtype), tokens], dim=1)
    if exists is not None:
        exists = F.pad(exists, (count, 0), value=True)
    cells = embeddings.flatten(2).transpose(1, 2).contiguous()
    cells = cells + dense.flatten(2).transpose(1, 2)
    code = sam.prompt_encoder.dense_position_code().to(cells.dtype)
    found, _ = decoder.transformer(tokens, cells, code, exists, prompts.image_index)
    return found[:, :count]


def object_tokens(
    sam: Sam, embeddings: Tensor | None, prompts: Prompts, with_prompt: bool = True, chunk: int | None = None
) -> ObjectTokens:
    """Return the tokens of N objects: the mask decoder's output tokens, then the prompt's.

    Args:
        sam: prompt encoder and mask decoder.
        embeddings: (B, C, h, w) of E_o; None leaves the mask decoder and its tokens out.
        prompts: of the objects.
        with_prompt: False hides the prompt from the mask decoder and from the head.
        chunk: objects decoded at a time, None for all at once; bounds the memory, not the result.
    """
    if not with_prompt:
        prompts = Prompts(prompts.coords[:, :0], prompts.labels[:, :0], prompts.image_index)
    tokens, exists, _ = sam.prompt_encoder(prompts)
    if embeddings is None:
        return ObjectTokens(tokens, exists, prompts.image_index)
    size = chunk or max(len(prompts), 1)
    parts = [
        decoded_tokens(sam, embeddings, prompts.select(slice(start, start + size)))
        for start in range(0, len(prompts), size)
    ]
    count = sam.mask_decoder.mask_count + 1
    decoded = torch.cat(parts) if parts else tokens.new_zeros(0, count, tokens.shape[-1])
    if exists is not None:
        exists = F.pad(exists, (count, 0), value=True)
    return ObjectTokens(torch.cat([decoded, tokens.to(decoded.dtype)], dim=1), exists, prompts.image_index)


class PromptedClassifierHead(nn.Module):
    """From tokens and cells to class scores.

    Args:
        transformer: the two-way transformer over classification, object and prompt tokens and the cells.
        classes: number of classes K.
        dim: width C of tokens and cells.
        global_dim: width of z_g; 0 leaves z_g out.
        chunk: objects at a time; bounds the memory, not the result.
    """

    def __init__(
        self, transformer: TwoWayTransformer, classes: int, dim: int = 256, global_dim: int = 256, chunk: int = 16
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.class_token = nn.Embedding(1, dim)
        self.classify = nn.Linear(dim + global_dim, classes)
        self.global_dim = global_dim
        self.chunk = chunk
        nn.init.trunc_normal_(self.class_token.weight, std=0.02)
        nn.init.trunc_normal_(self.classify.weight, std=0.02)
        nn.init.zeros_(self.classify.bias)

    def forward(self, objects: ObjectTokens, cells: Tensor, cell_code: Tensor, global_vector: Tensor | None) -> Tensor:
        """Classify N objects that lie in B images.

        Args:
            objects: their tokens.
            cells: (B, C, h, w), E_o's vision tokens plus E_g's global tokens.
            cell_code: (h * w, C) position code of the cells.
            global_vector: (B, global_dim) z_g, or None where ``global_dim`` is 0.

        Returns:
            (N, K) scores before softmax.
        """
        flat = cells.flatten(2).transpose(1, 2).contiguous()
        vector = None if self.global_dim == 0 else global_vector
        parts = []
        for start in range(0, len(objects), self.chunk):
            part = objects.part(start, start + self.chunk)
            if torch.is_grad_enabled() and len(objects) > self.chunk:
                # One chunk's activations at a time in the backward pass too.
                parts.append(checkpoint(self.classify_part, part, flat, cell_code, vector, use_reentrant=False))
            else:
                parts.append(self.classify_part(part, flat, cell_code, vector))
        return torch.cat(parts) if parts else flat.new_zeros(0, self.classify.out_features)

    def classify_part(self, objects: ObjectTokens, cells: Tensor, code: Tensor, vector: Tensor | None) -> Tensor:
        """Classify all ``objects`` at once; ``cells`` are (B, K, C) and ``vector`` is (B, global_dim) or None."""
        first = self.class_token.weight.expand(len(objects), 1, -1).to(objects.tokens.dtype)
        tokens = torch.cat([first, objects.tokens], dim=1)
        exists = None if objects.exists is None else F.pad(objects.exists, (1, 0), value=True)
        found, _ = self.transformer(tokens, cells, code.to(cells.dtype), exists, objects.image_index)
        final = found[:, 0]
        if vector is not None:
            final = torch.cat([final, vector[objects.image_index].to(final.dtype)], dim=1)
        return self.classify(final)
