"""Whether two networks compute the same: encoder and decoder on a fixed input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ultrasam.checkpoints.loading import Weights, load_into
from ultrasam.checkpoints.network import build_for
from ultrasam.modeling.prompt_encoder import Prompts
from ultrasam.modeling.sam import Sam

# Of the largest value: float32 rounding through a ViT is 1e-5, wrong weights are 1e-1.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Difference:
    """One output of two networks compared.

    Attributes:
        what: the output.
        largest: largest absolute difference.
        scale: largest absolute value of the first network's.
    """

    what: str
    largest: float
    scale: float

    @property
    def same(self) -> bool:
        """Whether the difference is rounding."""
        # A comparison with NaN is False, so values that are not finite are never the same.
        return self.largest <= TOLERANCE * max(self.scale, 1.0)

    def __str__(self) -> str:
        return f"{self.what}: largest difference {self.largest:.2g} of {self.scale:.3g}"


def fixed_image(size: int) -> Tensor:
    """Return the same picture every time, a bright disc in smooth noise: (3, 3/4 size, size) RGB, 0 to 255 float32."""
    generator = torch.Generator().manual_seed(20)
    coarse = torch.rand(1, 3, 12, 16, generator=generator)
    height = size * 3 // 4
    picture = torch.nn.functional.interpolate(coarse, (height, size), mode="bicubic", align_corners=False)[0]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(size), indexing="ij")
    disc = ((x - 0.45 * size) ** 2 + (y - 0.4 * size) ** 2) < (0.15 * size) ** 2
    return (picture * 150 + 90 * disc).clamp(0, 255)


def fixed_prompts(size: int, low_res: int) -> Prompts:
    """Return three objects of one image: two points, a box, and a point with a mask."""
    points = torch.tensor([[0.45, 0.4], [0.1, 0.6]]) * size
    box = torch.tensor([0.3, 0.25, 0.6, 0.55]) * size
    y, x = torch.meshgrid(torch.arange(low_res), torch.arange(low_res), indexing="ij")
    mask = 5 - 0.2 * ((x - 0.45 * low_res) ** 2 + (y - 0.4 * low_res) ** 2).sqrt()
    return Prompts.build(
        [points, None, points[:1]],
        [torch.tensor([1, 0]), None, torch.tensor([1])],
        [None, box, None],
        torch.zeros(3, dtype=torch.long),
        mask.expand(3, 1, low_res, low_res).float(),
        torch.tensor([False, False, True]),
    )


@torch.no_grad()
def outputs(sam: Sam, square: Tensor, decode: bool = True) -> dict[str, Tensor]:
    """Return what a network gives for one normalised square (1, 3, S, S): encoder, masks and predicted IoUs."""
    embedding = sam.encode(square)
    found = {"image encoder": embedding}
    if decode:
        prompts = fixed_prompts(sam.image_size, sam.low_res_size)
        for multimask in (False, True):
            logits, iou = sam.decode(embedding, prompts, multimask)
            kind = "masks 1 to 3" if multimask else "mask 0"
            found[f"{kind} of points"], found[f"{kind} of a box"] = logits[0], logits[1]
            found[f"{kind} of a point and a mask"] = logits[2]
            found[f"predicted IoU, {kind}"] = iou
    return found


def compare(first: Weights, second: Weights) -> list[Difference]:
    """Build the networks of two files and compare them on a fixed input.

    Args:
        first: the original; its preprocessing makes the input of both.
        second: its copy in another format. Where it holds the image encoder alone, that alone is compared.

    Raises:
        CheckpointError: a network cannot be built, or the second does not have the first's size.
    """
    decode = "mask_decoder" in first.parts and "mask_decoder" in second.parts
    sam = network_for(first)
    size = sam.image_size
    square = sam.preprocessing.batch([fixed_image(size)])
    expected = outputs(sam, square, decode)
    # One network at a time in memory.
    del sam
    found = outputs(network_for(second, size), square, decode)
    return [
        Difference(what, float((found[what] - value).abs().max()), float(value.abs().max()))
        for what, value in expected.items()
    ]


def network_for(weights: Weights, image_size: int | None = None) -> Sam:
    """Build a network and load what the file holds; without decoder, random numbers stay there, and nothing may ask.

    Raises:
        CheckpointError: it cannot be built, or a tensor is missing, superfluous or of another shape.
    """
    sam = build_for(weights, image_size)
    whole = "mask_decoder" in weights.parts
    load_into(sam if whole else _EncoderOnly(sam), weights)
    return sam.eval().requires_grad_(False)


class _EncoderOnly(torch.nn.Module):
    """A network's image encoder under its name."""

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.image_encoder = sam.image_encoder
