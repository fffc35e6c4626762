"""The decoder's passes on prompts of one image, as a trained network answers them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ultrasam.inference.decoding import Decoder
from ultrasam.modeling.prompt_encoder import CORNER_A, PADDING, Prompts


@torch.no_grad()
def run_passes(
    decoder: Decoder, prompts: Prompts, passes: Sequence[str], mask_prompt: bool
) -> tuple[Tensor, Tensor]:
    """Return what the last pass answers for N objects: logits (N, h, w) and predicted IoU (N,), float32.

    Args:
        decoder: of the image.
        prompts: in pixels of the square; ``prompts.masks`` enter the first pass.
        passes: "single" (mask token 0) or "multi" (the best of tokens 1 to 3) in order; none for SAM's convention:
            "multi" for one point alone, which may mean several things, and "single" for all else.
        mask_prompt: each pass gets the logits of the one before as mask prompt.
    """
    if not passes:
        return _by_ambiguity(decoder, prompts)
    logits, iou = decoder.decode(prompts, passes[0] == "multi", best=True)
    for kind in passes[1:]:
        masks = logits if mask_prompt else None
        following = Prompts(prompts.coords, prompts.labels, prompts.image_index, masks)
        logits, iou = decoder.decode(following, kind == "multi", best=True)
    return logits[:, 0].float(), iou[:, 0].float()


def _by_ambiguity(decoder: Decoder, prompts: Prompts) -> tuple[Tensor, Tensor]:
    # One point is two tokens, the point and not-a-point.
    alone = ((prompts.labels != PADDING).sum(dim=1) == 2) & ~(prompts.labels == CORNER_A).any(dim=1)
    if prompts.masks is not None:
        alone &= False if prompts.has_mask is None else ~prompts.has_mask
    groups = [(torch.nonzero(rows)[:, 0], kind) for rows, kind in ((alone, True), (~alone, False))]
    answers = [decoder.decode(prompts.select(rows), kind, best=True) for rows, kind in groups if len(rows)]
    if not answers:
        logits, iou = decoder.decode(prompts, False, best=True)
        return logits[:, 0].float(), iou[:, 0].float()
    back = torch.cat([rows for rows, _ in groups]).argsort()
    logits, iou = (torch.cat(parts)[back] for parts in zip(*answers, strict=True))
    return logits[:, 0].float(), iou[:, 0].float()
