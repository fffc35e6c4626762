"""A large collection of converted sets without images, to measure on."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ultrasam.datasets.coco import write_coco
from ultrasam.geometry.rle import RLE, encode_mask, rle_area, rle_box

SETS, IMAGES, MASKS = 42, 187_000, 282_000
_APPLICATIONS = ("cardiac", "thyroid nodules", "breast lesions", "prostate", "muscles", "ovarian", "GIST", "liver")
_TEST_SETS = 3
_FRAMES = 30
_SHAPES = ((390, 324), (540, 800), (256, 256), (112, 112), (480, 640))
_DRAWN = 40


def make_synthetic_sets(
    root: Path, *, sets: int = SETS, images: int = IMAGES, masks: int = MASKS, seed: int = 0
) -> None:
    """Write the files that conversions would have written, without the images.

    Sets differ in size as the public ones do: the largest has a quarter of all images. Masks are wavy ellipses, as long
    in writing as those of BUS-BRA. Groups have up to 30 images whose hashes differ little, and one group in a hundred
    has hashes near those of an earlier one.

    Args:
        root: folder to write into.
        sets: number of sets.
        images: number of images, at least one a set.
        masks: number of masks, at least one an image.
        seed: of everything random.
    """
    rng = np.random.default_rng(seed)
    shapes = _drawn_masks(rng)
    image_counts = _shares(images, 1 / np.arange(1, sets + 1))
    mask_counts = _shares(masks - images, image_counts) + image_counts
    known = _new_hashes(rng, 1)
    for number, (count, total) in enumerate(zip(image_counts.tolist(), mask_counts.tolist(), strict=True)):
        slug = f"synthetic_{number:02d}"
        frames = _FRAMES if count > 1000 else 1
        groups = np.arange(count) // frames
        hashes = _new_hashes(rng, int(groups[-1]) + 1)
        copied = rng.random(len(hashes)) < 0.01
        hashes[copied] = rng.choice(known, int(copied.sum()))
        known = np.concatenate((known, hashes))
        objects = 1 + np.bincount(rng.integers(0, count, total - count), minlength=count)
        _write_set(root, slug, number, _varied(hashes[groups], rng), groups, objects, shapes, rng)


def _shares(total: int, weights: NDArray[np.generic]) -> NDArray[np.int64]:
    """Divide a number in proportion to weights, at least one each where it can; the first gets the rest."""
    parts = np.maximum((total * weights / weights.sum()).astype(np.int64), 1 if total >= len(weights) else 0)
    parts[0] += total - parts.sum()
    return parts


def _drawn_masks(rng: np.random.Generator) -> list[tuple[int, int, list[RLE]]]:
    """Return masks, as height, width and some RLEs of this size."""
    return [(height, width, [encode_mask(_wavy_ellipse(height, width, rng)) for _ in range(_DRAWN)])
            for height, width in _SHAPES]


def _wavy_ellipse(height: int, width: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return a bool (height, width) mask with an uneven border."""
    angle = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    radius = 1 + sum(rng.uniform(0, 0.05) * np.sin(k * angle + rng.uniform(0, 6)) for k in (2, 3, 5, 9))
    x = width * (rng.uniform(0.3, 0.7) + rng.uniform(0.05, 0.33) * radius * np.cos(angle))
    y = height * (rng.uniform(0.3, 0.7) + rng.uniform(0.05, 0.22) * radius * np.sin(angle))
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.stack((x, y), axis=1).astype(np.int32)], 1)
    return mask > 0


def _new_hashes(rng: np.random.Generator, count: int) -> NDArray[np.uint64]:
    """Return random 64-bit hashes with 32 bits set."""
    bits = np.argsort(rng.random((count, 64)), axis=1) < 32
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


def _varied(hashes: NDArray[np.uint64], rng: np.random.Generator) -> NDArray[np.uint64]:
    """Return the hashes with up to two bits changed."""
    varied = hashes.copy()
    for _ in range(2):
        flips = np.uint64(1) << rng.integers(0, 64, len(varied)).astype(np.uint64)
        varied ^= np.where(rng.random(len(varied)) < 0.5, flips, np.uint64(0))
    return varied


def _write_set(
    root: Path, slug: str, number: int, hashes: NDArray[np.uint64], groups: NDArray[np.int64],
    objects: NDArray[np.int64], shapes: list[tuple[int, int, list[RLE]]], rng: np.random.Generator,
) -> None:
    """Write the annotation files and the manifest of a set."""
    height, width, masks = shapes[number % len(shapes)]
    measured = [(mask, rle_area(mask), rle_box(mask)) for mask in masks]
    last = int(groups[-1])
    split_of = ["test" if number < _TEST_SETS and group > 0.8 * last else "train" for group in groups.tolist()]
    picked = iter(rng.integers(0, len(masks), int(objects.sum())).tolist())
    sides: dict[str, tuple[list[object], list[object]]] = {}
    for position, (group, split) in enumerate(zip(groups.tolist(), split_of, strict=True)):
        pictures, items = sides.setdefault(split, ([], []))
        pictures.append({
            "id": len(pictures) + 1, "file_name": f"{slug}/images/patient_{group:05d}_{position:06d}.png",
            "width": width, "height": height, "dataset": slug, "application": _APPLICATIONS[number % 8],
            "group": f"{slug}/patient_{group:05d}", "split": split, "class": "benign" if group % 3 else "malignant",
            "source": f"Images/patient_{group:05d}_{position:06d}.png", "phash": f"{int(hashes[position]):016x}",
        })
        for _ in range(int(objects[position])):
            mask, area, (x1, y1, x2, y2) = measured[next(picked)]
            items.append({
                "id": len(items) + 1, "image_id": len(pictures), "category_id": 1 + len(items) % 2,
                "segmentation": mask, "area": area, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0,
            })
    categories = [{"id": 1, "name": "benign"}, {"id": 2, "name": "malignant"}]
    for split, (pictures, items) in sides.items():
        write_coco(root / f"{slug}/annotations/{split}.{slug}.json",
                   {"images": pictures, "annotations": items, "categories": categories})
    (root / slug / "manifest.json").write_text(json.dumps({"dataset": slug, "name": slug}) + "\n", encoding="utf-8")
