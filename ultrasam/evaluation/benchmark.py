"""Speed of the evaluation: every score of synthetic images, and average precision side by side with pycocotools."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ultrasam.errors import ConfigError, DataError, UltraSamError
from ultrasam.evaluation.breakdown import breakdown
from ultrasam.evaluation.coco import CATEGORY, IOU_TYPES
from ultrasam.evaluation.measures import measure_all
from ultrasam.evaluation.records import ObjectRecord, measured, records_of, unique
from ultrasam.evaluation.summary import average_precision, summarise_by_dataset, xywh
from ultrasam.geometry.rle import encode_mask
from ultrasam.io.files import write_atomic

Rows = list[dict[str, Any]]

WHAT = ("scores", "coco")
# Distinct images of the average precision; more objects repeat them under other ids and scores.
_POOL = 1000
_IMAGES_PER_GROUP = 3


@dataclass(frozen=True)
class Timing:
    """Seconds of one step.

    Attributes:
        step: what was done.
        wall: seconds on the clock.
        cpu: seconds of all threads of the process.
    """

    step: str
    wall: float
    cpu: float


class Clock:
    """Adds up the seconds of named steps."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add what happens inside to a step."""
        start = (time.perf_counter(), time.process_time())
        yield
        found = self.times.setdefault(name, [0.0, 0.0])
        found[0] += time.perf_counter() - start[0]
        found[1] += time.process_time() - start[1]

    def rows(self) -> list[Timing]:
        """Return the steps in the order of their first use."""
        return [Timing(name, *found) for name, found in self.times.items()]


def outline(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float64]:
    """Return a closed smooth outline (P, 2), x and y in pixels, like that of a lesion."""
    angle = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    radius = np.ones_like(angle)
    for order in range(2, 9):
        radius += rng.normal(0, 0.35 / order**1.5) * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    size = rng.uniform(0.05, 0.22) * min(height, width) * np.maximum(radius, 0.2)
    center = rng.uniform(0.25, 0.75, 2) * (width, height)
    return center + np.stack([1.3 * size * np.cos(angle), size * np.sin(angle)], axis=1)


def filled(points: npt.NDArray[np.float64], height: int, width: int) -> npt.NDArray[np.bool_]:
    """Return the mask (H, W) inside an outline."""
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [points.round().astype(np.int32)], [1])
    return mask.astype(bool)


def synthetic_sample(rng: np.random.Generator, number: int) -> dict[str, Any]:
    """Return a predicted sample as the metric gets it: about 600 x 800 pixels, 1 to 4 objects, imperfect masks."""
    height, width = (int(side * rng.uniform(0.9, 1.1)) for side in (600, 800))
    count = int(rng.integers(1, 5))
    truths, masks = [], []
    for _ in range(count):
        points = outline(rng, height, width)
        truths.append(encode_mask(filled(points, height, width)))
        wrong = rng.uniform(0.0, 0.06) * np.ptp(points)
        moved = points + rng.normal(0, wrong, 2) + rng.normal(0, 0.3 * wrong, points.shape)
        missed = rng.random() < 0.02
        masks.append(np.zeros((height, width), bool) if missed else filled(moved, height, width))
    return {
        "img_id": number, "img_path": f"{number}.png", "ori_shape": (height, width), "dataset": "synthetic",
        "group": f"patient {number // _IMAGES_PER_GROUP}", "spacing": (0.1, 0.1),
        "gt_instances": {"rles": truths, "annotation_ids": [10 * number + n + 1 for n in range(count)]},
        "pred_instances": {"masks": np.stack(masks), "scores": rng.uniform(0.3, 1, count).astype(np.float32)},
    }  # fmt: skip


def time_scores(images: int, seed: int = 0) -> tuple[list[Timing], int]:
    """Score synthetic images with every metric; making them is not timed. Returns timings and objects."""
    rng, clock = np.random.default_rng(seed), Clock()
    found: list[ObjectRecord] = []
    for number in range(images):
        sample = synthetic_sample(rng, number)
        with clock.step("records"):
            found += records_of(sample)
    with clock.step("summary"):
        records = unique(found)
        summarise_by_dataset(records)
    with clock.step("measures"):
        measures = measure_all(records)
    with clock.step("breakdown"):
        breakdown(records, measures)
    return clock.rows(), len(records)


def coco_records(objects: int, seed: int = 0) -> list[ObjectRecord]:
    """Return ``objects`` objects of synthetic images."""
    rng = np.random.default_rng(seed)
    pool: list[list[ObjectRecord]] = []
    while len(pool) < _POOL and sum(map(len, pool)) < objects:
        pool.append(records_of(synthetic_sample(rng, len(pool))))
    records: list[ObjectRecord] = []
    for number in range(objects):
        for record in pool[number % len(pool)][: objects - len(records)]:
            ids = {"image_id": number, "annotation_id": len(records) + 1, "image_path": f"{number}.png"}
            records.append(replace(record, score=float(rng.random()), **ids))  # type: ignore[arg-type]
        if len(records) == objects:
            break
    return records


def coco_inputs(records: Sequence[ObjectRecord]) -> tuple[Rows, Rows, Rows]:
    """Return COCO images, annotations (with area and box, as files have them) and results of measured objects."""
    images = {record.image_id: record.truth["size"] for record in records}
    truths, predictions = [], []
    for record in records:
        shared = {"image_id": record.image_id, "category_id": CATEGORY}
        truths.append({**shared, "id": record.annotation_id, "segmentation": dict(record.truth), "iscrowd": 0,
                       "area": record.truth_area, "bbox": xywh(record.truth_box)})  # fmt: skip
        predictions.append({**shared, "segmentation": dict(record.mask or {}), "bbox": xywh(record.box),
                            "score": record.score})  # fmt: skip
    return [{"id": k, "height": h, "width": w} for k, (h, w) in images.items()], truths, predictions


def time_coco(objects: int, seed: int = 0) -> tuple[Timing, list[tuple[str, Timing, Timing]]]:
    """Evaluate masks and boxes as a test does and with pycocotools, in this process.

    Returns:
        the time of checking and measuring all masks, which a test does once for all its scores; and by IoU type its
        name, our timing, and that of pycocotools, which reads areas and boxes of the truth and checks nothing.

    Raises:
        DataError: the two disagree, so that their times cannot be compared.
    """
    records, clock = coco_records(objects, seed), Clock()
    with clock.step("checks"):
        records = measured(records)
    inputs, rows = coco_inputs(records), []
    for iou_type in IOU_TYPES:
        both = Clock()
        with both.step("ultrasam"):
            ours = average_precision(records, iou_type)
        with both.step("pycocotools"):
            theirs = pycocotools_precision(*inputs, iou_type)
        if abs(ours["mAP"] - theirs) > 1e-9:
            raise DataError(f"{iou_type} mAP is {ours['mAP']!r}, {theirs!r} by pycocotools: not the same work")
        first, second = both.rows()
        rows.append((iou_type, first, second))
    return clock.rows()[0], rows


def pycocotools_precision(images: Rows, truths: Rows, predictions: Rows, iou_type: str) -> float:
    """Return the mAP by pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    # It adds keys to what it gets, and masks to boxes.
    shown = [{**row} for row in predictions]
    if iou_type == "bbox":
        for row in shown:
            del row["segmentation"]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {}, "images": images, "annotations": [{**row} for row in truths],
            "categories": [{"id": CATEGORY, "name": "object"}],
        }  # fmt: skip
        truth.createIndex()
        if iou_type == "segm":
            # With a box beside the mask, it would sort predictions by the area of the box.
            for row in shown:
                del row["bbox"]
        evaluation = COCOeval(truth, truth.loadRes(shown), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, 0, 0, -1]
    return float(precision[precision > -1].mean())


def scores_report(images: int) -> dict[str, Any]:
    """Measure the scores, print a table, return the numbers."""
    rows, objects = time_scores(images)
    print(f"Every score of {images} images of about 600 x 800 pixels, {objects} objects:")
    for row in [*rows, total := Timing("total", sum(r.wall for r in rows), sum(r.cpu for r in rows))]:
        print(f"  {row.step:<12} {row.wall:8.2f} s  {row.cpu:8.2f} s CPU  {1000 * row.cpu / objects:7.2f} ms an object")
    print(f"  {images / total.wall:.1f} images/s, {images / total.cpu:.1f} images per second of CPU")
    return {
        "images": images, "objects": objects, "steps": [asdict(row) for row in rows],
        "images_per_second": images / total.wall, "images_per_cpu_second": images / total.cpu,
    }  # fmt: skip


def coco_report(objects: int) -> dict[str, Any]:
    """Measure the average precision, print a table with ratios, return the numbers."""
    checks, rows = time_coco(objects)
    print(f"Average precision of {objects} objects, from objects to numbers, both in this process:")
    for name, ours, theirs in rows:
        for row in (ours, theirs):
            print(f"  {name:<5} {row.step:<12} {row.wall:8.2f} s  {row.cpu:8.2f} s CPU")
        print(f"  {name:<5} share of pycocotools' time: {ours.wall / theirs.wall:.3f}, CPU {ours.cpu / theirs.cpu:.3f}")
    walls, cpus = ([sum(getattr(row[k], key) for row in rows) for k in (1, 2)] for key in ("wall", "cpu"))
    print(f"  both  share of pycocotools' time: {walls[0] / walls[1]:.3f}, CPU {cpus[0] / cpus[1]:.3f}")
    print(f"  checking and measuring all masks, once for all scores: {checks.wall:.2f} s, {checks.cpu:.2f} s CPU")
    print(f"  both  share of pycocotools' time with these checks: {(walls[0] + checks.wall) / walls[1]:.3f}, "
          f"CPU {(cpus[0] + checks.cpu) / cpus[1]:.3f}")  # fmt: skip
    return {
        "objects": objects, "checks": asdict(checks),
        "share_of_wall": walls[0] / walls[1], "share_of_cpu": cpus[0] / cpus[1],
        "rows": [{"iou_type": name, "ours": asdict(a), "pycocotools": asdict(b)} for name, a, b in rows],
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit status: 0, or 2 after an error that was printed as one sentence."""
    parser = argparse.ArgumentParser(
        prog="benchmark_evaluation",
        description="Measure the speed of the evaluation on synthetic predictions; inference plays no part.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--what", nargs="+", choices=WHAT, default=list(WHAT), help="scores: every metric of every "
                        "object with intervals; coco: average precision beside pycocotools")  # fmt: skip
    parser.add_argument("--images", type=int, default=1000, help="images that are scored")
    parser.add_argument("--objects", type=int, default=50_000, help="objects of the average precision")
    parser.add_argument("--out", type=Path, help="write the numbers to this JSON file")
    options = parser.parse_args(arguments)
    reports: dict[str, Callable[[], dict[str, Any]]] = {
        "scores": lambda: scores_report(options.images),
        "coco": lambda: coco_report(options.objects),
    }
    try:
        for name in ("images", "objects"):
            if getattr(options, name) < 1:
                raise ConfigError(f"--{name} must be at least 1, found {getattr(options, name)}")
        found = {name: reports[name]() for name in options.what}
        if options.out is not None:
            write_atomic(options.out, (json.dumps(found, indent=2) + "\n").encode())
    except UltraSamError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
