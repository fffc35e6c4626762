"""Pipeline transforms of MMDetection's registry: from a file to the detector's input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from torch.nn import functional as F

from ultrasam.datasets.prompts import ObjectPrompt, simulate_prompt
from ultrasam.errors import ConfigError, DataError
from ultrasam.geometry.rle import decode_mask, encode_mask
from ultrasam.geometry.transform import SquareTransform
from ultrasam.io.images import read_image
from ultrasam.modeling.prompt_encoder import Prompts

META_KEYS = ("img_path", "img_id", "dataset", "group", "sample_idx", "ori_shape", "img_shape", "flip", "transform")
# What only some pipelines start from.
OPTIONAL_META_KEYS = ("application", "spacing")


@TRANSFORMS.register_module()
class LoadUltrasound(BaseTransform):
    """Read the image (H, W, 3) uint8 RGB and the masks of its objects (N, H, W) bool."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``img``, ``masks``, ``ori_shape``."""
        # Datasets that do not have a file for every image bring the pixels.
        image = results["img"] if "img" in results else read_image(results["img_path"])
        size = (results["height"], results["width"])
        if image.shape[:2] != size:
            raise DataError(
                f"{results['img_path']} is {image.shape[0]} x {image.shape[1]} (height x width), its annotation file "
                f"says {size[0]} x {size[1]}; correct the file's height and width, or the image"
            )
        masks = [decode_mask(obj.rle) for obj in results["objects"]]
        results["img"] = image
        results["masks"] = np.stack(masks) if masks else np.zeros((0, *size), bool)
        results["boxes"] = np.array([obj.box for obj in results["objects"]], np.float32).reshape(-1, 4)
        results["ori_shape"] = size
        results["flip"] = False
        return results


@TRANSFORMS.register_module()
class FlipHorizontal(BaseTransform):
    """Mirror image and masks left to right.

    Args:
        prob: probability.
    """

    def __init__(self, prob: float = 0.5) -> None:
        self.prob = prob

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Mirror ``img``, ``masks`` and ``boxes`` with the given probability."""
        if "transform" in results:
            raise ConfigError("FlipHorizontal mirrors image and masks alike; put it before FitSquare in the pipeline")
        if np.random.uniform() >= self.prob:
            return results
        width = results["img"].shape[1]
        results["img"] = np.ascontiguousarray(results["img"][:, ::-1])
        results["masks"] = np.ascontiguousarray(results["masks"][:, :, ::-1])
        boxes = results["boxes"].copy()
        boxes[:, [0, 2]] = width - results["boxes"][:, [2, 0]]
        results["boxes"] = boxes
        results["flip"] = True
        return results


@TRANSFORMS.register_module()
class FitSquare(BaseTransform):
    """Resize the image into the network's square and make the low-resolution training targets.

    Args:
        square: side of the square in pixels.
        mode: "pad" or "squash".
        interpolation: of the image.
        target_size: side of the targets in pixels (SAM at 1024: 256); None makes none, as for tests.
    """

    def __init__(
        self, square: int, mode: str = "pad", interpolation: str = "bilinear", target_size: int | None = None
    ) -> None:
        self.square = square
        self.mode = mode
        self.interpolation = interpolation
        self.target_size = target_size

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``img`` by the resized one; add ``transform``, ``img_shape`` and ``targets``."""
        height, width = results["img"].shape[:2]
        fit = SquareTransform.fit(height, width, self.square, self.mode, self.interpolation)  # type: ignore[arg-type]
        results["transform"] = fit
        results["img"] = fit.image(results["img"])
        results["img_shape"] = results["img"].shape[:2]
        if self.target_size is not None:
            results["targets"] = low_resolution_targets(results["masks"], fit, self.target_size)
        return results


def low_resolution_targets(masks: NDArray[np.bool_], fit: SquareTransform, size: int) -> torch.Tensor:
    """Resize masks (N, H, W) into the padded square, then bilinearly to ``size``, and round: (N, size, size) bool."""
    if fit.square == 4 * size:
        return _quarter_targets(masks, fit, size)
    square = torch.zeros(len(masks), 1, fit.square, fit.square)
    for row, mask in enumerate(masks):
        small = fit.mask(mask)
        square[row, 0, : small.shape[0], : small.shape[1]] = torch.from_numpy(small)
    if size != fit.square and len(masks):
        square = F.interpolate(square, size=(size, size), mode="bilinear", align_corners=False)
    else:
        square = square[..., :size, :size]
    return square[:, 0].round() > 0


def _quarter_targets(masks: NDArray[np.bool_], fit: SquareTransform, size: int) -> torch.Tensor:
    """As above for SAM's quarter: there bilinear resizing is the mean of the middle four of sixteen pixels.

    One half rounds to 0, so three of the four must be foreground; only those pixels are looked up.
    """
    (height, width), (rows, columns) = fit.original_size, fit.resized_size
    middle = np.arange(size)[:, None] * 4 + (1, 2)
    y, x = middle[middle < rows], middle[middle < columns]
    pixels = np.zeros((len(masks), 2 * size, 2 * size), np.uint8)
    # As in SquareTransform.mask: the original pixel that holds the centre of the resized one.
    y_from, x_from = (2 * y + 1) * height // (2 * rows), (2 * x + 1) * width // (2 * columns)
    pixels[:, : len(y), : len(x)] = masks[:, y_from].take(x_from, axis=2)
    return torch.from_numpy(pixels.reshape(len(masks), size, 2, size, 2).sum((2, 4), dtype=np.uint8) >= 3)


@TRANSFORMS.register_module()
class SimulatePrompts(BaseTransform):
    """Give every object its prompt, by the dataset's mode (``ultrasam.datasets.prompts``).

    Test prompts depend on the mask alone; training draws come from NumPy's generator, which the runner seeds for
    each sample, so neither depends on the number of workers.

    Args:
        point_share: probability of a point in training.
        box_jitter: share of width and height that corners move by in training.
        repeats: prompts drawn for each object in training.
    """

    def __init__(self, point_share: float = 0.5, box_jitter: float = 0.05, repeats: int = 1) -> None:
        self.point_share = point_share
        self.box_jitter = box_jitter
        self.repeats = repeats

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``prompts``, a list over objects (times ``repeats`` in training)."""
        rng = np.random.default_rng(np.random.randint(0, 2**31, size=4))
        training = results["prompt"] == "train"
        repeats = self.repeats if training else 1
        results["prompts"] = [
            simulate_prompt(mask, tuple(box), results["prompt"], rng, self.point_share, self.box_jitter)
            for mask, box in zip(results["masks"], results["boxes"], strict=True)
            for _ in range(repeats)
        ]
        results["repeats"] = repeats
        return results


@TRANSFORMS.register_module()
class PackPrompted(BaseTransform):
    """Pack the input (3, h, w) uint8 and a ``DetDataSample`` with truth, targets and prompts."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``inputs`` and ``data_samples``."""
        optional = [key for key in OPTIONAL_META_KEYS if key in results]
        sample = DetDataSample(metainfo={key: results[key] for key in (*META_KEYS, *optional)})
        repeats = results["repeats"]
        objects = [obj for obj in results["objects"] for _ in range(repeats)]
        # The truth belongs to the image as the network sees it, mirrored or not.
        rles = [encode_mask(mask) for mask in results["masks"]] if results["flip"] else None
        sample.gt_instances = InstanceData(
            rles=[obj.rle for obj in objects] if rles is None else [rle for rle in rles for _ in range(repeats)],
            labels=torch.tensor([obj.label for obj in objects], dtype=torch.long),
            bboxes=torch.from_numpy(results["boxes"]).repeat_interleave(repeats, dim=0),
            annotation_ids=[obj.annotation_id for obj in objects],
        )
        if "targets" in results:
            sample.gt_instances.targets = results["targets"].repeat_interleave(repeats, dim=0)
        sample.prompt_instances = pack_prompts(results)
        image = torch.from_numpy(np.ascontiguousarray(results["img"].transpose(2, 0, 1)))
        return {"inputs": image, "data_samples": sample}


def prompt_tokens(prompts: Sequence[ObjectPrompt], fit: SquareTransform) -> Prompts:
    """Return the tokens of the objects of one image, in the square's pixels."""
    return Prompts.build(
        [torch.from_numpy(fit.points(p.points)) if len(p.points) else None for p in prompts],
        [torch.from_numpy(p.point_labels) if len(p.points) else None for p in prompts],
        [None if p.box is None else torch.from_numpy(fit.boxes(p.box)) for p in prompts],
        torch.zeros(len(prompts), dtype=torch.long),
    )


def pack_prompts(results: dict[str, Any]) -> InstanceData:
    """Return prompts in original pixels for people, and their tokens in the square's pixels for the network."""
    fit, prompts = results["transform"], results["prompts"]
    none = torch.full((4,), float("nan"))
    boxes = [none if p.box is None else torch.from_numpy(p.box) for p in prompts]
    tokens = prompt_tokens(prompts, fit)
    return InstanceData(
        points=[p.points for p in prompts],
        point_labels=[p.point_labels for p in prompts],
        boxes=torch.stack(boxes) if boxes else torch.zeros(0, 4),
        kind=[p.kind for p in prompts],
        coords=tokens.coords,
        labels=tokens.labels,
    )
