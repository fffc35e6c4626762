"""What an exported pair of graphs gives next to the network that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ultrasam.errors import ConfigError
from ultrasam.geometry.transform import SquareTransform
from ultrasam.modeling.prompt_encoder import CORNER_A, CORNER_B, NEGATIVE, NOT_A_POINT, PADDING, POSITIVE, Prompts
from ultrasam.modeling.sam import Sam

# Largest absolute difference in embedding, logits and predicted IoU.
LIMIT = 1e-3

Run = Callable[[Mapping[str, Tensor]], list[Tensor]]


def compare(sam: Sam, encoder: Run, decoder: Run, masks: bool, seed: int = 0) -> dict[str, float]:
    """Run both on drawn images and prompts, of other sizes than those traced.

    Args:
        sam: the network, on the CPU, in float32.
        encoder: runs the exported encoder on named inputs.
        decoder: runs the exported decoder.
        masks: whether the decoder gives masks at the original size.
        seed: of the images and prompts.

    Returns:
        largest absolute difference by output: "embedding", "logits", "iou" and, with ``masks``, "masks".
    """
    generator = torch.Generator().manual_seed(seed)
    worst: dict[str, float] = {}

    def note(name: str, found: Tensor, expected: Tensor) -> None:
        if found.shape != expected.shape:
            raise ConfigError(
                f"the exported {name} has the shape {tuple(found.shape)}, expected {tuple(expected.shape)}; "
                "please report this together with the versions of torch and onnx"
            )
        gap = (found - expected).abs().max().item() if found.numel() else 0.0
        # A comparison with NaN is False, so it must not look like a small difference.
        worst[name] = float("nan") if gap != gap else max(worst.get(name, 0.0), gap)

    side = sam.image_size
    with torch.inference_mode():
        for height, width in _image_sizes(sam):
            image = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
            expected = sam.encode(sam.preprocessing.batch([image.permute(2, 0, 1)]))
            note("embedding", encoder({"image": image})[0], expected)
        for labels in _label_layouts():
            count = len(labels)
            coords = torch.rand(*labels.shape, 2, generator=generator) * side * (labels >= 0).unsqueeze(-1)
            prior = 4 * torch.randn(count, 1, sam.low_res_size, sam.low_res_size, generator=generator)
            has = torch.rand(count, generator=generator) < 0.5
            inputs = {"embedding": expected, "coords": coords, "labels": labels, "mask": prior, "has_mask": has}
            original = torch.tensor([side // 2 + 3, side + 5])
            found = decoder({**inputs, "original_size": original} if masks else inputs)
            prompts = Prompts(coords, labels, torch.zeros(count, dtype=torch.long), prior, has)
            parts = [sam.decode(expected, prompts, multimask) for multimask in (False, True)]
            logits, iou = (torch.cat(pair, dim=1) for pair in zip(*parts, strict=True))
            note("logits", found[0], logits)
            note("iou", found[1], iou)
            if masks:
                mode = sam.preprocessing.mode
                transform = SquareTransform.fit(int(original[0]), int(original[1]), side, mode)  # type: ignore[arg-type]
                note("masks", found[2].flatten(0, 1), transform.logits_back(logits.flatten(0, 1)))
    return worst


def require_parity(worst: Mapping[str, float]) -> None:
    """Refuse an export that differs.

    Raises:
        ConfigError: a difference above ``LIMIT``, or NaN.
    """
    for name, gap in worst.items():
        if not gap <= LIMIT:
            raise ConfigError(
                f"the exported {name} differs from PyTorch's by {gap:.2g}, at most {LIMIT:g} was expected; nothing "
                "was written, please report this together with the versions of torch, onnx and onnxruntime"
            )


def _image_sizes(sam: Sam) -> list[tuple[int, int]]:
    """Sizes of resized images: the whole square and, where the image may be smaller, a landscape and a portrait."""
    side = sam.image_size
    return [(side, side)] if sam.preprocessing.mode == "squash" else [(side // 3, side), (side, side - 1)]


def _label_layouts() -> list[Tensor]:
    """Labels of some objects: one box, one point, mixtures with padding, more tokens than the tracing saw."""
    box, end = [CORNER_A, CORNER_B], [NOT_A_POINT]
    mixed = [
        [POSITIVE, *end, PADDING, PADDING],
        [*box, PADDING, PADDING],
        [POSITIVE, NEGATIVE, *box],
        [POSITIVE, POSITIVE, NEGATIVE, *end],
        [POSITIVE, *box, PADDING],
    ]
    many = [[POSITIVE, NEGATIVE] * 10 + box, [POSITIVE] * 20 + end + [PADDING]]
    return [torch.tensor(rows) for rows in ([box], [[POSITIVE, *end]], mixed, many)]
