"""A miniature data set of instance segmentation on disk, and tiny stand-ins of every backbone, shared by tests."""

import json
from pathlib import Path

import cv2
import numpy as np

from ultrasam.engine.setup import register_all
from ultrasam.geometry.rle import encode_mask

register_all()

from mmdet.registry import MODELS  # noqa: E402

SIDE = 64
# Each has the depth of four blocks (so four taps), a width of two digits, and its own patch and positions.
TINY = {
    "ResNetBackbone": dict(blocks=[1, 1, 1, 1], image_size=SIDE),
    "SamBackbone": dict(arch="vit_tiny", image_size=SIDE, sizes=dict(dim=48)),
    "Dinov2Backbone": dict(image_size=56, depth=4, dim=48, heads=3),
    "UsfmBackbone": dict(image_size=SIDE, depth=4, dim=48, heads=3),
    "DeblurringMimBackbone": dict(image_size=SIDE, depth=4, dim=48, heads=3),
}
TINY_VIT = dict(
    arch="tiny_vit", image_size=SIDE, weights=None,
    sizes=dict(dims=(16, 16, 32, 32), depths=(1, 1, 1, 1), heads=(1, 1, 1, 1), windows=(7, 7, 4, 4), out_dim=32),
)  # fmt: skip
TINY_HEAD = dict(
    queries=6, channels=32, heads=2, encoder_layers=1, decoder_layers=3, encoder_mlp=32, decoder_mlp=32, points=64
)


def tiny(kind, **changes):
    """Build a tiny backbone."""
    return MODELS.build({"type": kind, **TINY[kind], **changes})


def ellipses(rng, count, size):
    height, width = size
    y, x = np.mgrid[:height, :width]
    masks = np.zeros((count, height, width), bool)
    for mask in masks:
        center, radius = rng.uniform(0.3, 0.7, 2) * size, rng.uniform(0.1, 0.25, 2) * min(size)
        mask[:] = ((y - center[0]) / radius[0]) ** 2 + ((x - center[1]) / radius[1]) ** 2 <= 1
    return masks


def write_set(folder, ann_file, classes, counts, seed=0, size=(48, 72)):
    """Write images with ``counts`` ellipses each and their COCO file; classes go round."""
    rng = np.random.default_rng(seed)
    folder, ann_file = Path(folder), Path(folder) / ann_file
    ann_file.parent.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number, count in enumerate(counts):
        height, width = size[0] + 8 * (number % 2), size[1]
        pixels = rng.integers(0, 100, (height, width), dtype=np.uint8)
        name = f"{ann_file.stem}_{number}.png"
        for mask in ellipses(rng, count, (height, width)):
            label = len(annotations) % len(classes)
            pixels[mask] = 120 + 10 * label
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number + 1, "category_id": label + 1, "iscrowd": 0,
                 "segmentation": encode_mask(mask)}
            )  # fmt: skip
        cv2.imwrite(str(folder / name), pixels)
        images.append(
            {"id": number + 1, "file_name": name, "height": height, "width": width, "dataset": "mini",
             "group": f"patient {number}"}
        )  # fmt: skip
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(classes)]
    ann_file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return ann_file
