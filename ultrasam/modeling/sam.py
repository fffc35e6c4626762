"""SAM as one module: image encoder, prompt encoder, mask decoder, and what happens to pixels before."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ultrasam.modeling.image_encoder import ImageEncoder
from ultrasam.modeling.mask_decoder import MULTI, SINGLE, MaskDecoder
from ultrasam.modeling.prompt_encoder import PromptEncoder, Prompts
from ultrasam.modeling.tiny_vit import TinyViT

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Preprocessing:
    """What turns an RGB image of 0 to 255 into the network's input; belongs to the weights.

    Attributes:
        square: side of the network's input in pixels.
        mode: "pad" keeps the aspect and pads right and bottom with zeros; "squash" resizes both sides (MedSAM).
        interpolation: "bilinear", "area" or "bicubic" resizing.
        scaling: "mean_std" subtracts ``mean`` and divides by ``std``; "min_max" maps each image to 0 to 1.
        mean: per channel, RGB, 0 to 255.
        std: per channel, RGB.
    """

    square: int = 1024
    mode: str = "pad"
    interpolation: str = "bilinear"
    scaling: str = "mean_std"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.mode not in ("pad", "squash"):
            raise ValueError(f"preprocessing mode must be 'pad' or 'squash', got {self.mode!r}")
        if self.scaling not in ("mean_std", "min_max"):
            raise ValueError(f"preprocessing scaling must be 'mean_std' or 'min_max', got {self.scaling!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint's card."""
        return asdict(self)

    def normalize(self, image: Tensor) -> Tensor:
        """Scale one resized, unpadded image (3, h, w), RGB 0 to 255, to float32."""
        image = image.float()
        if self.scaling == "min_max":
            low, high = image.min(), image.max()
            return (image - low) / (high - low).clamp(min=1e-8)
        mean = torch.tensor(self.mean, device=image.device).reshape(3, 1, 1)
        std = torch.tensor(self.std, device=image.device).reshape(3, 1, 1)
        return (image - mean) / std

    def batch(self, images: list[Tensor]) -> Tensor:
        """Normalise resized images (3, h, w) and pad them with zeros: (B, 3, square, square) float32."""
        out = torch.zeros(len(images), 3, self.square, self.square, device=images[0].device)
        for row, image in enumerate(images):
            if max(image.shape[-2:]) > self.square:
                raise ValueError(f"image of {tuple(image.shape[-2:])} does not fit a square of {self.square}")
            out[row, :, : image.shape[-2], : image.shape[-1]] = self.normalize(image)
        return out


class Sam(nn.Module):
    """Segment Anything: state-dict names are those of ``segment-anything``.

    Args:
        image_encoder: module with ``image_size`` (pixels) and ``stride`` (pixels a cell).
        prompt_encoder: encodes points, boxes and masks.
        mask_decoder: decodes masks.
        preprocessing: how pixels become the input.
        arch: name of the architecture, for checkpoints and messages.
    """

    def __init__(
        self,
        image_encoder: ImageEncoder | TinyViT,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
        preprocessing: Preprocessing,
        arch: str,
    ) -> None:
        super().__init__()
        self.image_encoder: ImageEncoder | TinyViT = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.preprocessing = preprocessing
        self.arch = arch
        self.mlp_residual = "single"

    @property
    def image_size(self) -> int:
        """Side of the network's square in pixels."""
        return self.prompt_encoder.image_size

    @property
    def low_res_size(self) -> int:
        """Side of the low-resolution masks in pixels."""
        return 4 * self.prompt_encoder.embedding_size

    def set_mlp_residual(self, form: str) -> None:
        """Choose the residual form that the weights were trained with: "single" or "double" (UltraSam.pth)."""
        self.mask_decoder.transformer.set_mlp_residual(form)
        self.mlp_residual = form

    def encode(self, images: Tensor) -> Tensor:
        """Encode normalised squares (B, 3, S, S) to embeddings (B, C, h, w)."""
        return self.image_encoder(images)

    def decode(
        self, embeddings: Tensor, prompts: Prompts, multimask: bool, chunk: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Decode the objects of a batch.

        Args:
            embeddings: (B, C, h, w).
            prompts: prompts of N objects in those images.
            multimask: masks 1 to 3, or mask 0 alone.
            chunk: objects decoded at a time, None for all at once; bounds the memory, not the result.

        Returns:
            logits (N, M, 4h, 4w) and predicted IoU (N, M).
        """
        outputs = MULTI if multimask else SINGLE
        count = len(prompts)
        if count == 0:
            masks = range(self.mask_decoder.mask_count)[outputs]
            side = 4 * embeddings.shape[-1]
            return embeddings.new_zeros(0, len(masks), side, side), embeddings.new_zeros(0, len(masks))
        code = self.prompt_encoder.dense_position_code()
        if chunk is None or count <= chunk:
            return self.decode_part(embeddings, code, prompts, outputs)
        parts = []
        for start in range(0, count, chunk):
            part = prompts.select(slice(start, start + chunk))
            if torch.is_grad_enabled():
                # One chunk's activations at a time in the backward pass too.
                parts.append(checkpoint(self.decode_part, embeddings, code, part, outputs, use_reentrant=False))
            else:
                parts.append(self.decode_part(embeddings, code, part, outputs))
        logits, ious = zip(*parts, strict=True)
        return torch.cat(logits), torch.cat(ious)

    def decode_part(
        self, embeddings: Tensor, code: Tensor, prompts: Prompts, outputs: slice
    ) -> tuple[Tensor, Tensor]:
        """Decode all objects of ``prompts`` at once; see ``decode``."""
        tokens, exists, dense = self.prompt_encoder(prompts)
        return self.mask_decoder(embeddings, code, tokens, dense, prompts.image_index, exists, outputs)

    @torch.no_grad()
    def copy_single_mask_token(self, noise: float = 0.02, seed: int = 0) -> None:
        """Start masks 1 to 3 from mask 0, for weights whose ambiguous output was never trained (LiteMedSAM).

        Args:
            noise: standard deviation of the tokens' difference, relative to that of token 0, so that they part ways.
            seed: of that noise.
        """
        decoder = self.mask_decoder
        tokens = decoder.mask_tokens.weight
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(tokens[1:].shape, generator=generator).to(tokens)
        tokens[1:] = tokens[:1] + noise * tokens[0].std() * drawn
        first = decoder.output_hypernetworks_mlps[0].state_dict()
        for mlp in decoder.output_hypernetworks_mlps[1:]:
            mlp.load_state_dict(first)
        last = decoder.iou_prediction_head.layers[-1]
        assert isinstance(last, nn.Linear)
        last.weight[1:] = last.weight[:1]
        last.bias[1:] = last.bias[:1]
