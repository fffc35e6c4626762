"""Small batches as the pipeline packs them, shared by the detector's tests and the processes that they start."""

import numpy as np
import torch
from mmengine.dataset import Compose

from ultrasam.datasets.coco import CocoObject
from ultrasam.engine.setup import register_all
from ultrasam.geometry.rle import encode_mask, rle_area, rle_box

register_all()

from ultrasam.datasets.transforms import FitSquare, PackPrompted, SimulatePrompts  # noqa: E402
from ultrasam.models.detector import UltraSamDetector  # noqa: E402

SIZE, LOW = 128, 32


def packed(seed, objects, prompt="mixed", size=(60, 96), low=LOW, fit=None):
    """Return one packed image with ``objects`` ellipses; "mixed" prompts alternate between boxes and points."""
    rng = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[:height, :width]
    image = rng.integers(0, 100, (height, width, 3), dtype=np.uint8)
    masks, records = np.zeros((objects, height, width), bool), []
    for number in range(objects):
        center, radius = rng.uniform(0.25, 0.75, 2) * (height, width), rng.uniform(0.08, 0.25, 2) * height
        masks[number] = ((y - center[0]) / radius[0]) ** 2 + ((x - center[1]) / radius[1]) ** 2 <= 1
        image[masks[number]] += 100
        rle = encode_mask(masks[number])
        records.append(CocoObject(number + 1, 0, rle, rle_box(rle), rle_area(rle)))
    results = dict(
        img=image, masks=masks, boxes=np.array([r.box for r in records], np.float32).reshape(-1, 4), objects=records,
        prompt="train" if prompt == "mixed" else prompt, img_path=f"{seed}.png", img_id=seed, dataset="mini",
        group=str(seed), sample_idx=seed, ori_shape=size, height=height, width=width, flip=False,
    )  # fmt: skip
    np.random.seed(seed)
    return Compose([fit or FitSquare(SIZE, target_size=low), SimulatePrompts(), PackPrompted()])(results)


def batch_of(*counts, prompt="mixed", first_seed=0):
    """Return the data of a batch whose images have ``counts`` objects."""
    items = [packed(first_seed + number, count, prompt) for number, count in enumerate(counts)]
    return {key: [item[key] for item in items] for key in ("inputs", "data_samples")}


def small_detector(seed=0, **arguments):
    """Return a ViT of 128 pixels with random weights, without dropout."""
    torch.manual_seed(seed)
    return UltraSamDetector(**{"arch": "vit_tiny", "image_size": SIZE, "dropout": 0.0, **arguments})
