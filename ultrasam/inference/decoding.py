"""Decoding of prompts of one encoded image where there is no gradient: equal to ``Sam.decode`` up to rounding."""

from __future__ import annotations

from torch import Tensor

from ultrasam.modeling.prompt_encoder import Prompts
from ultrasam.modeling.sam import Sam

# Objects decoded at a time.
CHUNK, GPU_CHUNK = 2, 32


class Decoder:
    """Decodes prompts of one image.

    Args:
        sam: the network, in evaluation mode.
        embedding: (1, C, h, w) on the network's device.
    """

    def __init__(self, sam: Sam, embedding: Tensor) -> None:
        self.sam = sam
        self.embedding = embedding

    def decode(self, prompts: Prompts, multimask: bool, best: bool) -> tuple[Tensor, Tensor]:
        """Decode N objects.

        Args:
            prompts: all of this image.
            multimask: masks 1 to 3, or mask 0 alone.
            best: return the mask of the highest predicted IoU only.

        Returns:
            logits (N, M, 4h, 4w) and predicted IoU (N, M); M is 1 with ``best``.
        """
        chunk = GPU_CHUNK if self.embedding.is_cuda else CHUNK
        logits, iou = self.sam.decode(self.embedding, prompts, multimask, chunk)
        if not best:
            return logits, iou
        index = iou.argmax(dim=1, keepdim=True)
        return logits.take_along_dim(index[..., None, None], 1), iou.take_along_dim(index, 1)
