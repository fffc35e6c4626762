"""Whole training and test steps of the detector, on synthetic images that go through the real pipeline."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ultrasam.engine.benchmark_encoder import encode
from ultrasam.engine.benchmark_timing import PRECISIONS, Row, Settings, rows_of, time_alternating
from ultrasam.geometry.rle import encode_mask, rle_area, rle_box
from ultrasam.modeling.build import build_sam

if TYPE_CHECKING:
    from mmengine.optim import OptimWrapper

    from ultrasam.models.detector import UltraSamDetector

Batch = dict[str, list[Any]]


def build_detector(settings: Settings) -> UltraSamDetector:
    """Return the detector with random weights and the paper's two passes."""
    from ultrasam.engine.setup import register_all

    register_all()
    from ultrasam.models.detector import UltraSamDetector

    torch.manual_seed(settings.seed)
    return UltraSamDetector(arch=settings.arch, image_size=settings.image_size).to(settings.device)


def build_optimizer(detector: UltraSamDetector, settings: Settings) -> OptimWrapper:
    """Return the paper's optimizer (AdamW, gradients clipped to 0.1) in the precision of the settings."""
    from mmengine.optim import OptimWrapper

    from ultrasam.engine.precision import BFloat16OptimWrapper

    wrapper = BFloat16OptimWrapper if PRECISIONS[settings.precision] == torch.bfloat16 else OptimWrapper
    parameters = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=1e-4)
    return wrapper(optimizer=optimizer, clip_grad=dict(max_norm=0.1, norm_type=2))


def synthetic_batch(settings: Settings, images: int, objects: int, prompt: str) -> Batch:
    """Return a batch as the data loader gives it: images 3:4 with ``objects`` ellipses each.

    Args:
        settings: the square's size and the seed.
        images: images of the batch.
        objects: objects of each image.
        prompt: mode of the simulated prompts, "train", "point" or "box".
    """
    from mmengine.dataset import Compose, pseudo_collate

    from ultrasam.datasets.transforms import FitSquare, PackPrompted, SimulatePrompts

    with torch.device("meta"):
        sam = build_sam(settings.arch, settings.image_size)
    pixels = sam.preprocessing
    fit = FitSquare(pixels.square, pixels.mode, pixels.interpolation, target_size=sam.low_res_size)
    pipeline = Compose([fit, SimulatePrompts(), PackPrompted()])
    rng = np.random.default_rng(settings.seed)
    return pseudo_collate([pipeline(_loaded_image(settings, objects, prompt, rng)) for _ in range(images)])


def measure_training(settings: Settings) -> list[Row]:
    """Time one training step (forward, backward, optimizer) for every number of objects per image."""
    detector = build_detector(settings).train()
    optimizer = build_optimizer(detector, settings)
    cases: dict[str, Callable[[], object]] = {
        training_case(settings, count): partial(
            detector.train_step, synthetic_batch(settings, settings.images, count, "train"), optimizer
        )
        for count in settings.objects
    }
    seconds = time_alternating(cases, settings.repeats, settings.device)
    first, *others = cases
    return rows_of("training step", seconds, dict.fromkeys(others, first))


def measure_test(settings: Settings) -> list[Row]:
    """Time one test step (encoder, two passes, post-processing) of one object against the encoder alone."""
    detector = build_detector(settings).eval()
    batch = synthetic_batch(settings, 1, 1, "point")
    dtype = PRECISIONS[settings.precision]
    squares = detector.sam.preprocessing.batch([image.to(settings.device) for image in batch["inputs"]])
    alone, whole = f"encoder alone {settings.precision}", f"1 image, 1 object {settings.precision}"
    cases: dict[str, Callable[[], object]] = {
        alone: partial(encode, detector.sam.image_encoder, squares, dtype),
        whole: partial(_test_step, detector, batch, dtype),
    }
    return rows_of("test step", time_alternating(cases, settings.repeats, settings.device), {whole: alone})


def training_case(settings: Settings, objects: int) -> str:
    """Return the name of a training step in the table."""
    return f"{settings.images} images x {objects} objects {settings.precision}"


def _test_step(detector: UltraSamDetector, batch: Batch, dtype: torch.dtype | None) -> object:
    """Predict the masks of a batch."""
    device = next(detector.parameters()).device.type
    with torch.no_grad(), torch.autocast(device, dtype=dtype, enabled=dtype is not None):
        return detector.test_step(batch)


def _loaded_image(settings: Settings, objects: int, prompt: str, rng: np.random.Generator) -> dict[str, Any]:
    """Return what the pipeline's loading step gives: noise with ellipses and their masks."""
    from ultrasam.datasets.coco import CocoObject

    height, width = settings.image_size * 3 // 4, settings.image_size
    y, x = np.mgrid[:height, :width]
    image = rng.integers(0, 100, (height, width, 3), dtype=np.uint8)
    masks = np.zeros((objects, height, width), bool)
    records = []
    for number in range(objects):
        center = rng.uniform(0.2, 0.8, 2) * (height, width)
        radius = rng.uniform(0.05, 0.2, 2) * height
        masks[number] = ((y - center[0]) / radius[0]) ** 2 + ((x - center[1]) / radius[1]) ** 2 <= 1
        image[masks[number]] += 100
        rle = encode_mask(masks[number])
        records.append(CocoObject(number + 1, 0, rle, rle_box(rle), rle_area(rle)))
    return dict(
        img=image,
        masks=masks,
        boxes=np.array([record.box for record in records], np.float32),
        objects=records,
        prompt=prompt,
        img_path="synthetic.png",
        img_id=1,
        dataset="synthetic",
        group="synthetic",
        sample_idx=0,
        ori_shape=(height, width),
        height=height,
        width=width,
        flip=False,
    )
