"""How fast images come out of the training pipeline, and what each transform costs."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from ultrasam.datasets.coco import write_coco
from ultrasam.engine.sampling import SeededDataset
from ultrasam.engine.setup import register_all
from ultrasam.errors import UltraSamError
from ultrasam.geometry.rle import encode_mask, rle_area, rle_box
from ultrasam.io.images import write_png

TARGET = 40
MAX_OBJECTS = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table; return the exit status: 0, or 2 after an error, which is printed as one sentence."""
    parser = argparse.ArgumentParser(prog="tools/benchmark_data.py --loading", description=__doc__)
    parser.add_argument("--images", type=int, default=400, help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="processes that load (default: %(default)s)")
    parser.add_argument("--square", type=int, default=1024, help="side of the network's input (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="benchmark_loading_") as folder:
            make_images(Path(folder), options.images)
            print("\n".join(measure(Path(folder), options.workers, options.square)))
    except (UltraSamError, OSError) as error:
        print(f"benchmark_data: {error}", file=sys.stderr)
        return 2
    return 0


def training_pipeline(square: int) -> list[dict[str, Any]]:
    """Return the transforms of the paper's training (configs/_base_/datasets/us43d.py)."""
    return [
        dict(type="LoadUltrasound"),
        dict(type="FlipHorizontal", prob=0.5),
        dict(type="FitSquare", square=square, mode="pad", interpolation="bilinear", target_size=square // 4),
        dict(type="SimulatePrompts", point_share=0.5, box_jitter=0.05),
        dict(type="PackPrompted"),
    ]


def make_images(root: Path, count: int, seed: int = 0) -> None:
    """Write speckled sectors of about 600 x 800 pixels as RGB PNG files, with 1 to 4 wavy ellipses each as RLE."""
    rng = np.random.default_rng(seed)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        height, width = 600 + int(rng.integers(-40, 40)), 800 + int(rng.integers(-60, 60))
        name = f"images/{number:05d}.png"
        write_png(root / name, _picture(height, width, rng))
        images.append({"id": number + 1, "file_name": name, "height": height, "width": width})
        for _ in range(1 + number % MAX_OBJECTS):
            rle = encode_mask(_ellipse(height, width, rng))
            x1, y1, x2, y2 = rle_box(rle)
            annotations.append({
                "id": len(annotations) + 1, "image_id": number + 1, "category_id": 1, "iscrowd": 0,
                "segmentation": rle, "area": rle_area(rle), "bbox": [x1, y1, x2 - x1, y2 - y1],
            })  # fmt: skip
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
    write_coco(root / "train.json", document)


def _picture(height: int, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return speckle inside of a sector, black around it, uint8 (H, W, 3)."""
    grain = cv2.GaussianBlur(rng.normal(0, 1, (height, width)).astype(np.float32), (0, 0), 1.5)
    grey = np.clip(70 + 160 * grain, 0, 255)
    x, y = np.arange(width)[None] - width / 2, np.arange(height)[:, None] + 60.0
    grey[(np.abs(x) > 0.8 * y) | (x**2 + y**2 > (height + 20) ** 2)] = 0
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def _ellipse(height: int, width: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    radius = 1 + 0.1 * np.sin(angle * int(rng.integers(3, 7)) + rng.uniform(0, 6))
    x = rng.uniform(0.3, 0.7) * width + rng.uniform(20, 120) * radius * np.cos(angle)
    y = rng.uniform(0.3, 0.7) * height + rng.uniform(20, 120) * radius * np.sin(angle)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.stack([x, y], axis=1).round().astype(np.int32)], (1,))
    return mask.astype(bool)


def measure(root: Path, workers: int, square: int) -> list[str]:
    """Return the lines of the table: images a second through a loader, and the processor time of each transform."""
    register_all()
    from ultrasam.datasets.dataset import PromptedCocoDataset

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    pipeline = training_pipeline(square)
    dataset = PromptedCocoDataset("train.json", str(root), pipeline=pipeline)
    loader = DataLoader(SeededDataset(dataset, 0), batch_size=8, num_workers=workers, collate_fn=list)
    iterator = iter(loader)
    # The workers start before the clock does.
    next(iterator)
    begin = time.perf_counter()
    seen = sum(len(batch) for batch in iterator)
    rate = seen / (time.perf_counter() - begin)
    lines = [f"{'training pipeline at ' + str(square):<34} {rate:7.1f} images/s, {workers} processes, target {TARGET}"]
    seconds = transform_seconds(dataset)
    lines += [f"{'  ' + name:<34} {1000 * value:7.2f} ms an image" for name, value in seconds.items()]
    return [*lines, f"{'  sum':<34} {1000 * sum(seconds.values()):7.2f} ms an image, processor time of one process"]


def transform_seconds(dataset: Any, images: int = 100) -> dict[str, float]:
    """Return the processor time of each transform, seconds an image."""
    total: dict[str, float] = {}
    np.random.seed(0)
    count = min(images, len(dataset))
    for index in range(count):
        results = dataset.get_data_info(index)
        for transform in dataset.pipeline.transforms:
            begin = time.process_time()
            results = transform(results)
            name = type(transform).__name__
            total[name] = total.get(name, 0.0) + time.process_time() - begin
    return {name: value / count for name, value in total.items()}
