"""Running a converter in a test and reading what it wrote, with pycocotools; and pictures and masks to run it on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from data_prep.catalogue import find_converter
from data_prep.pipeline import convert
from data_prep.splits import SplitPlan

Objects = list[tuple[str, np.ndarray]]
NO_VALIDATION = SplitPlan(validation_fraction=0)


def load(out: Path, slug: str) -> dict[str, dict[str, Any]]:
    """Return the image records of all splits by name, each with its ``objects`` as (category, bool mask)."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((out / slug / "annotations").glob(f"*.{slug}.json")):
        document = json.loads(path.read_text())
        names = {item["id"]: item["name"] for item in document["categories"]}
        assert tuple(names.values()) == find_converter(slug).info.categories
        by_id = {image["id"]: image | {"objects": []} for image in document["images"]}
        for item in document["annotations"]:
            mask = coco_mask.decode(item["segmentation"]).astype(bool)
            by_id[item["image_id"]]["objects"].append((names[item["category_id"]], mask))
        for image in by_id.values():
            assert (out / image["file_name"]).is_file()
            name = Path(image["file_name"]).stem
            assert name not in found
            found[name] = image
    return found


def run(slug: str, source: Path, out: Path, **options: Any) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Convert; return the image records as `load` does, and the manifest."""
    manifest = convert(find_converter(slug), source, out, workers=1, **options)
    return load(out, slug), manifest


def run_for_pixels(
    slug: str, source: Path, out: Path, **options: Any
) -> tuple[dict[str, tuple[dict[str, Any], np.ndarray, Objects]], dict[str, Any]]:
    """Convert; return record, pixels and (category, mask) pairs by image name, and the manifest."""
    images, manifest = run(slug, source, out, **options)
    return {name: (image, np.array(Image.open(out / image["file_name"])), image["objects"])
            for name, image in images.items()}, manifest


def converted(
    slug: str, source: Path, out: Path, *, keep_going: bool = False
) -> dict[str, tuple[dict[str, Any], Objects]]:
    """Convert without a validation side; return record and (category, mask) pairs by image name."""
    images, _ = run(slug, source, out, plan=NO_VALIDATION, keep_going=keep_going)
    return {name: (image, image["objects"]) for name, image in images.items()}


def groups(found: dict[str, tuple[dict[str, Any], Objects]]) -> dict[str, str]:
    """Return the group by image name, without the slug."""
    return {key: image["group"].split("/", 1)[1] for key, (image, _) in found.items()}


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return a bright picture, so that nothing of it counts as background."""
    return np.random.default_rng(seed).integers(40, 256, (height, width), dtype=np.uint8)


def block(height: int, width: int, top: int, left: int, down: int, across: int) -> np.ndarray:
    """Return a bool mask of one rectangle."""
    mask = np.zeros((height, width), bool)
    mask[top:top + down, left:left + across] = True
    return mask


def save(path: Path, pixels: np.ndarray, mode: str | None = None, **options: int) -> Path:
    """Write an image file, its folder too, converted to a mode of Pillow where one is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path
