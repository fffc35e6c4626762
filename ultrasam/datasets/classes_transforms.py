"""Pipeline of images with one class or one value each: reading without masks, and packing."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from ultrasam.datasets.transforms import META_KEYS, OPTIONAL_META_KEYS
from ultrasam.datasets.values_scale import value_scale
from ultrasam.io.images import read_image


@TRANSFORMS.register_module()
class LoadPicture(BaseTransform):
    """Read the image (H, W, 3) uint8 RGB; there are no objects."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``img``, ``ori_shape``, and no masks and boxes, which later transforms turn with the image."""
        image = read_image(results["img_path"])
        results["img"] = image
        results["ori_shape"] = image.shape[:2]
        results["masks"] = np.zeros((0, *image.shape[:2]), bool)
        results["boxes"] = np.zeros((0, 4), np.float32)
        results["flip"] = False
        return results


@TRANSFORMS.register_module()
class PackClass(BaseTransform):
    """Pack the input (3, h, w) uint8 and a sample with ``gt_instances.labels`` (1,) and the names of the classes."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``inputs`` and ``data_samples``."""
        truth = InstanceData(labels=torch.tensor([results["label"]], dtype=torch.long), annotation_ids=[0])
        return pack(results, truth, {"classes": results["classes"]})


@TRANSFORMS.register_module()
class PackValue(BaseTransform):
    """Pack the input (3, h, w) uint8 and a sample with ``gt_instances.measured`` (1,), in the unit of the data.

    ``value_scale`` is the factor from a value to what the network can see of it, see ``datasets.values_scale``.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``inputs`` and ``data_samples``."""
        truth = InstanceData(measured=torch.tensor([results["value"]], dtype=torch.float32), annotation_ids=[0])
        scale = value_scale(results["quantity"], results["transform"], results["spacing"], results["img_path"])
        about = {"value_scale": scale, "quantity": results["quantity"], "value_unit": results["unit"]}
        return pack(results, truth, about)


def pack(results: dict[str, Any], truth: InstanceData, about: dict[str, Any]) -> dict[str, Any]:
    """Return what a model takes: the image (3, h, w) uint8, and a sample with the truth and what is known of it."""
    optional = [key for key in OPTIONAL_META_KEYS if key in results]
    sample = DetDataSample(metainfo={**{key: results[key] for key in (*META_KEYS, *optional)}, **about})
    sample.gt_instances = truth
    image = torch.from_numpy(np.ascontiguousarray(results["img"].transpose(2, 0, 1)))
    return {"inputs": image, "data_samples": sample}
