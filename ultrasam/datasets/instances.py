"""Dataset and transforms of instance segmentation: images with all their objects, each of a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import DATASETS, TRANSFORMS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from ultrasam.datasets.dataset import PromptedCocoDataset
from ultrasam.datasets.transforms import META_KEYS, OPTIONAL_META_KEYS
from ultrasam.errors import ConfigError
from ultrasam.geometry.rle import encode_mask, rle_box
from ultrasam.geometry.transform import SquareTransform


@DATASETS.register_module()
class InstanceCocoDataset(PromptedCocoDataset):
    """Images of a COCO file with their objects and classes, nothing prompted.

    Objects are read as for prompted segmentation: every mask becomes RLE, boxes and areas are those of the masks,
    groups (``iscrowd``) are left out, and a mistake in the file is an error that names the record.

    Args:
        ann_file: the COCO file, relative to ``data_root`` or absolute.
        data_root: folder that ``ann_file`` and the images' file names are relative to.
        img_prefix: folder of the images below ``data_root``, for files whose names leave it out.
        pipeline: configs of the transforms.
        classes: names that the file must have, in the order of the labels; None takes the file's.
        empty: "keep" trains images without objects as negatives, "skip" leaves them out.
        indices: keep the first so many images (int) or those named (list), after ``empty``; None keeps all.
        test_mode: set by test loaders; images without objects are kept then, whatever ``empty`` says.
        metainfo: further values for ``metainfo``.

    Raises:
        DataError: the file cannot be used, or holds no image.
        ConfigError: a value that does not exist, or classes that the file does not have.
    """

    def __init__(
        self,
        ann_file: str,
        data_root: str = "",
        img_prefix: str = "",
        pipeline: Sequence[dict[str, Any]] = (),
        classes: Sequence[str] | None = None,
        empty: str = "keep",
        indices: int | Sequence[int] | None = None,
        test_mode: bool = False,
        metainfo: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            ann_file, data_root, img_prefix, pipeline,
            classes=classes, empty=empty, indices=indices, test_mode=test_mode, metainfo=metainfo,
        )  # fmt: skip

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return what the pipeline starts from: the image's path, size, ids, objects, and the names of the classes."""
        info = super().get_data_info(index)
        del info["prompt"]
        return {**info, "classes": self.metainfo["classes"]}


@TRANSFORMS.register_module()
class JitterSquare(BaseTransform):
    """Resize an image by a random factor and cut a random window out of what exceeds the square (training only).

    "Large scale jittering" (Ghiasi et al. 2021), the augmentation of MMDetection's Mask2Former. Takes the place of
    ``FitSquare``; objects outside of the window are left out.

    Args:
        square: side of the square in pixels.
        smallest: least factor, of the size that fits the square.
        largest: greatest factor.
        mode: "pad" or "squash", as the backbone's weights need.
        interpolation: of the image.

    Raises:
        ConfigError: factors that are none.
    """

    def __init__(
        self,
        square: int,
        smallest: float = 0.1,
        largest: float = 2.0,
        mode: str = "pad",
        interpolation: str = "bilinear",
    ) -> None:
        if not 0 < smallest <= largest:
            raise ConfigError(f"JitterSquare needs 0 < smallest <= largest, got {smallest} and {largest}")
        self.square = square
        self.smallest = smallest
        self.largest = largest
        self.mode = mode
        self.interpolation = interpolation

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``img``, add ``targets`` (N, square, square) bool of the ``objects`` that remain."""
        height, width = results["img"].shape[:2]
        fit = SquareTransform.fit(height, width, self.square, self.mode, self.interpolation)  # type: ignore[arg-type]
        factor = np.random.uniform(self.smallest, self.largest)
        size = tuple(max(1, int(side * factor + 0.5)) for side in fit.resized_size)
        resize = SquareTransform((height, width), size, max(size), self.interpolation)  # type: ignore[arg-type]
        top, left = (int(np.random.randint(0, max(side - self.square, 0) + 1)) for side in size)
        window = np.s_[top : top + self.square, left : left + self.square]
        results["img"] = np.ascontiguousarray(resize.image(results["img"])[window])
        results["img_shape"] = results["img"].shape[:2]
        results["transform"] = None
        targets = torch.zeros(len(results["masks"]), self.square, self.square, dtype=torch.bool)
        for row, mask in enumerate(results["masks"]):
            part = torch.from_numpy(np.ascontiguousarray(resize.mask(mask)[window]))
            targets[row, : part.shape[0], : part.shape[1]] = part
        results["targets"] = targets
        return results


@TRANSFORMS.register_module()
class PackInstances(BaseTransform):
    """Pack the input (3, h, w) uint8 and a ``DetDataSample`` with the objects.

    ``gt_instances`` has ``labels`` (N,), ``annotation_ids`` and, in training (where a transform made ``targets``),
    ``masks`` (N, S, S) bool in the square; otherwise ``rles`` and ``bboxes`` of the original image.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``inputs`` and ``data_samples``."""
        if "transform" not in results:
            raise ConfigError("PackInstances needs an image in its square; put FitSquare or JitterSquare before it")
        optional = [key for key in (*OPTIONAL_META_KEYS, "classes") if key in results]
        sample = DetDataSample(metainfo={key: results[key] for key in (*META_KEYS, *optional)})
        objects = results["objects"]
        labels = torch.tensor([obj.label for obj in objects], dtype=torch.long)
        numbers = np.array([obj.annotation_id for obj in objects], np.int64)
        if "targets" in results:
            # An object outside of the window, or thinner than a pixel of the square, has nothing left to learn.
            kept = results["targets"].flatten(1).any(dim=1)
            truth = {"masks": results["targets"][kept], "labels": labels[kept], "annotation_ids": numbers[kept.numpy()]}
        else:
            rles = [encode_mask(mask) for mask in results["masks"]] if results["flip"] else [o.rle for o in objects]
            boxes = [rle_box(rle) for rle in rles]
            truth = {
                "rles": rles,
                "labels": labels,
                "annotation_ids": numbers,
                "bboxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            }
        sample.gt_instances = InstanceData(**truth)
        image = torch.from_numpy(np.ascontiguousarray(results["img"].transpose(2, 0, 1)))
        return {"inputs": image, "data_samples": sample}
