"""``SamPredictor`` with the methods, arguments and shapes of the ``segment_anything`` package, on any weights.

Scripts written for it run with two imports changed::

    from ultrasam.inference.sam_predictor import SamPredictor, sam_model_registry

    sam = sam_model_registry["vit_b"](checkpoint="sam_vit_b_01ec64.pth").to(device="cpu")
    predictor = SamPredictor(sam)

Nothing is decided for the caller here: one pass of the decoder, no field of view. Coordinates outside of the image are
taken as they are; only what has no meaning is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ultrasam.errors import CheckpointError, PromptError
from ultrasam.geometry.transform import SquareTransform
from ultrasam.inference.decoding import Decoder
from ultrasam.inference.enlarge import Enlarger
from ultrasam.inference.model import UltraSam
from ultrasam.modeling.prompt_encoder import CORNER_A, CORNER_B, NOT_A_POINT, Prompts

Size = tuple[int, ...]
Answer = tuple[Tensor, Tensor, Tensor]


def _registered(checkpoint: str | Path | None = None, *, arch: str) -> UltraSam:
    """Load a checkpoint on the CPU, as ``segment_anything``'s builders do.

    Raises:
        CheckpointError: no checkpoint, or one of another architecture.
    """
    if checkpoint is None:
        raise CheckpointError(f"the {arch} network needs weights; pass checkpoint='FILE'")
    model = UltraSam.from_checkpoint(checkpoint, device="cpu")
    if model.sam.arch != arch:
        raise CheckpointError(f"{checkpoint} is {model.sam.arch}, but {arch} was asked for; ask for {model.sam.arch}")
    return model


sam_model_registry: dict[str, Callable[..., UltraSam]] = {
    name: partial(_registered, arch=arch)
    for name, arch in (("default", "vit_h"), ("vit_h", "vit_h"), ("vit_l", "vit_l"), ("vit_b", "vit_b"))
}


class ResizeLongestSide:
    """What ``SamPredictor.transform`` is: images, points and boxes to the network's frame.

    Args:
        model: whose square and preprocessing count.
    """

    def __init__(self, model: UltraSam) -> None:
        self.model = model
        self.target_length = model.sam.image_size

    def apply_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize (H, W, 3) uint8. Plain SAM weights get Pillow's smoothing filter, which they were trained with."""
        fit = self.model.fit(image.shape[0], image.shape[1])
        if self.model.passes:
            return fit.image(image)
        height, width = fit.resized_size
        return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))

    def apply_image_torch(self, image: Tensor) -> Tensor:
        """Resize (B, C, H, W) floating values; nearly ``apply_image``."""
        size = self.model.fit(image.shape[-2], image.shape[-1]).resized_size
        return F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)

    def apply_coords(self, coords: NDArray[Any], original_size: Size) -> NDArray[Any]:
        """Map points (..., 2) x, y of an image of ``original_size`` (H, W)."""
        return self._fit(original_size).points(np.asarray(coords, np.float64))

    def apply_boxes(self, boxes: NDArray[Any], original_size: Size) -> NDArray[Any]:
        """Map boxes (B, 4) or (4,) to (B, 4)."""
        return self.apply_coords(np.asarray(boxes).reshape(-1, 2, 2), original_size).reshape(-1, 4)

    def apply_coords_torch(self, coords: Tensor, original_size: Size) -> Tensor:
        """As ``apply_coords``, float32."""
        return self._fit(original_size).points(coords.float())

    def apply_boxes_torch(self, boxes: Tensor, original_size: Size) -> Tensor:
        """As ``apply_boxes``, float32."""
        return self.apply_coords_torch(boxes.reshape(-1, 2, 2), original_size).reshape(-1, 4)

    def _fit(self, size: Size) -> SquareTransform:
        return self.model.fit(int(size[0]), int(size[1]))


class SamPredictor:
    """Encode an image once, then predict masks from prompts; see ``segment_anything.SamPredictor``.

    Args:
        sam_model: the model.

    Attributes:
        features: (1, C, h, w) embedding of the image; may be set to one that was kept, with the sizes.
        original_size: (H, W) of the image in pixels.
        input_size: (h, w) of the resized image inside the network's square.
        is_image_set: whether there is an image.
    """

    def __init__(self, sam_model: UltraSam) -> None:
        self.model = sam_model
        self.transform = ResizeLongestSide(sam_model)
        self.reset_image()

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.model.device

    def reset_image(self) -> None:
        """Forget the image."""
        self.is_image_set = False
        self.features: Tensor | None = None
        self.original_size: Size = ()
        self.input_size: Size = ()
        self._decoder: Decoder | None = None

    def set_image(self, image: NDArray[np.uint8], image_format: str = "RGB") -> None:
        """Encode an image.

        Args:
            image: (H, W, 3) uint8.
            image_format: order of its channels, "RGB" or "BGR".

        Raises:
            PromptError: another order of channels.
        """
        if image_format not in ("RGB", "BGR"):
            raise PromptError(f"image_format must be 'RGB' or 'BGR', got {image_format!r}")
        pixels = np.ascontiguousarray(image[..., ::-1] if image_format == "BGR" else image)
        resized = torch.from_numpy(self.transform.apply_image(pixels)).to(self.device)
        self.set_torch_image(resized.permute(2, 0, 1).contiguous()[None], pixels.shape[:2])

    @torch.no_grad()
    def set_torch_image(self, transformed_image: Tensor, original_image_size: Size) -> None:
        """Encode an image that is resized already.

        Args:
            transformed_image: (1, 3, h, w), 0 to 255, its long side that of the network's square.
            original_image_size: (H, W) before resizing.

        Raises:
            PromptError: another shape.
        """
        shape, side = tuple(transformed_image.shape), self.model.sam.image_size
        if len(shape) != 4 or shape[:2] != (1, 3) or max(shape[2:]) != side:
            raise PromptError(f"a transformed image is (1, 3, h, w) with a long side of {side}, found {shape}")
        self.reset_image()
        self.original_size = (int(original_image_size[0]), int(original_image_size[1]))
        self.input_size = shape[2:]
        square = self.model.sam.preprocessing.batch([transformed_image[0].to(self.device)])
        self.features = self.model.sam.encode(square)
        self.is_image_set = True

    def predict(
        self,
        point_coords: NDArray[Any] | None = None,
        point_labels: NDArray[Any] | None = None,
        box: NDArray[Any] | None = None,
        mask_input: NDArray[Any] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]]:
        """Predict masks of one object, in pixels of the original image.

        Args:
            point_coords: (P, 2) x, y.
            point_labels: (P,), 1 inside, 0 outside.
            box: (4,) x1, y1, x2, y2.
            mask_input: (1, h, w) low-resolution logits of an earlier answer.
            multimask_output: three masks of an ambiguous prompt, or one.
            return_logits: logits at the original size in place of masks.

        Returns:
            masks (M, H, W) bool (or float32), predicted IoU (M,), low-resolution logits (M, h, w).

        Raises:
            RuntimeError: no image is set.
            PromptError: points without labels, or prompts of another shape.
        """
        self._require_image()
        coords = labels = boxes = masks = None
        if point_coords is not None:
            if point_labels is None:
                raise PromptError("point_coords need point_labels, one per point (1 inside, 0 outside)")
            mapped = self.transform.apply_coords(point_coords, self.original_size)
            coords = torch.as_tensor(mapped, dtype=torch.float, device=self.device)[None]
            labels = torch.as_tensor(point_labels, dtype=torch.int, device=self.device)[None]
        if box is not None:
            mapped = self.transform.apply_boxes(box, self.original_size)
            boxes = torch.as_tensor(mapped, dtype=torch.float, device=self.device)
        if mask_input is not None:
            masks = torch.as_tensor(mask_input, dtype=torch.float, device=self.device)[None]
        found = self.predict_torch(coords, labels, boxes, masks, multimask_output, return_logits)
        image, iou, low = (part[0].cpu().numpy() for part in found)
        return image, iou, low

    @torch.no_grad()
    def predict_torch(
        self,
        point_coords: Tensor | None,
        point_labels: Tensor | None,
        boxes: Tensor | None = None,
        mask_input: Tensor | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> Answer:
        """Predict masks of B objects, in the network's frame (``transform``).

        Args:
            point_coords: (B, P, 2) x, y.
            point_labels: (B, P), 1 inside, 0 outside, -1 for no point.
            boxes: (B, 4).
            mask_input: (B, 1, h, w) low-resolution logits, or (1, 1, h, w) for all.
            multimask_output: as in ``predict``.
            return_logits: as in ``predict``.

        Returns:
            masks (B, M, H, W), predicted IoU (B, M), low-resolution logits (B, M, h, w).

        Raises:
            RuntimeError: no image is set.
            PromptError: shapes that do not fit each other.
        """
        features = self._require_image()
        if self._decoder is None or self._decoder.embedding is not features:
            self._decoder = Decoder(self.model.sam, features)
        prompts = self._prompts(point_coords, point_labels, boxes, mask_input)
        low, iou = self._decoder.decode(prompts, multimask_output, best=False)
        return self._at_original_size(low, return_logits), iou, low

    def get_image_embedding(self) -> Tensor:
        """Return the embedding (1, C, h, w) of the image.

        Raises:
            RuntimeError: no image is set.
        """
        return self._require_image()

    def _require_image(self) -> Tensor:
        if not self.is_image_set or self.features is None:
            raise RuntimeError("An image must be set with .set_image(...) before mask prediction.")
        return self.features

    def _prompts(
        self, points: Tensor | None, labels: Tensor | None, boxes: Tensor | None, masks: Tensor | None
    ) -> Prompts:
        """Lay batched prompts out as the network's tokens: points, then corners or not-a-point."""
        coords_parts: list[Tensor] = []
        label_parts: list[Tensor] = []
        device = self.device
        if points is not None:
            if labels is None or points.ndim != 3 or points.shape[2] != 2 or labels.shape != points.shape[:2]:
                found = None if labels is None else tuple(labels.shape)
                raise PromptError(f"points are (B, P, 2) with labels (B, P), found {tuple(points.shape)} and {found}")
            known = (labels == 1) | (labels == 0) | (labels == -1)
            if not bool(known.all()):
                raise PromptError(f"a point's label is 1, 0 or -1, found {labels[~known][0].item():g}")
            coords_parts.append(points.to(device, torch.float32))
            label_parts.append(labels.to(device, torch.long))
        if boxes is not None:
            corners = boxes.reshape(-1, 2, 2).to(device, torch.float32)
            coords_parts.append(corners)
            label_parts.append(torch.tensor([CORNER_A, CORNER_B], device=device).expand(len(corners), 2))
        elif points is not None:
            coords_parts.append(torch.zeros(len(points), 1, 2, device=device))
            label_parts.append(torch.full((len(points), 1), NOT_A_POINT, device=device))
        counts = {len(part) for part in coords_parts}
        if len(counts) > 1:
            raise PromptError(f"points and boxes must be of as many objects, found {sorted(counts)}")
        count = counts.pop() if counts else 1 if masks is None else len(masks)
        if masks is not None:
            side = self.model.sam.low_res_size
            if tuple(masks.shape[1:]) != (1, side, side) or len(masks) not in (1, count):
                raise PromptError(f"mask_input is ({count}, 1, {side}, {side}), found {tuple(masks.shape)}")
            masks = masks.to(device, torch.float32).expand(count, -1, -1, -1)
        if not coords_parts:
            coords_parts = [torch.zeros(count, 0, 2, device=device)]
            label_parts = [torch.zeros(count, 0, dtype=torch.long, device=device)]
        coords, joined = torch.cat(coords_parts, dim=1), torch.cat(label_parts, dim=1)
        if not bool(coords.isfinite().all()):
            raise PromptError("a point or box has a coordinate that is no number; give numbers in pixels")
        coords = torch.where((joined == NOT_A_POINT)[..., None], 0.0, coords)
        return Prompts(coords, joined, torch.zeros(count, dtype=torch.long, device=device), masks)

    def _at_original_size(self, low: Tensor, return_logits: bool) -> Tensor:
        """Enlarge (B, M, h, w) to (B, M, H, W), logits or masks."""
        height, width = int(self.original_size[0]), int(self.original_size[1])
        resized = (int(self.input_size[0]), int(self.input_size[1]))
        transform = SquareTransform((height, width), resized, self.model.sam.image_size)
        flat = low.flatten(0, 1)
        if return_logits:
            return transform.logits_back(flat).unflatten(0, low.shape[:2])
        if low.is_cuda:
            return (transform.logits_back(flat) > 0).unflatten(0, low.shape[:2])
        masks, _ = Enlarger(transform, (0, 0), (height, width)).masks(flat)
        return torch.from_numpy(masks).unflatten(0, low.shape[:2])
