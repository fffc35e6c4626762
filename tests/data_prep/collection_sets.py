"""Small converted sets, as the conversion writes them, and what the files of a collection hold."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from data_prep.records import DatasetInfo
from ultrasam.datasets.coco import write_coco
from ultrasam.geometry.rle import encode_mask, rle_area, rle_box
from ultrasam.io.perceptual_hash import perceptual_hash


@dataclass(frozen=True)
class Frame:
    """One image: its patient, side, a seed for its picture (equal ones show the same), class and objects."""

    key: str
    patient: str
    side: str
    picture: int
    label: str | None = None
    objects: tuple[str, ...] = ("lesion",)
    size: tuple[int, int] = (48, 64)


def pixels(seed: int, size: tuple[int, int]) -> np.ndarray:
    """Speckle, the same for one seed at every size. uint8 H x W x 3."""
    grain = np.random.default_rng(seed).normal(0, 1, (96, 128)).astype(np.float32)
    grey = np.clip(110 + 150 * cv2.GaussianBlur(grain, (0, 0), 3), 20, 255)
    small = cv2.resize(grey, size[::-1], interpolation=cv2.INTER_AREA)
    return np.repeat(small.astype(np.uint8)[:, :, None], 3, axis=2)


def write_converted(
    root: Path, slug: str, frames: list[Frame], categories: tuple[str, ...] = ("lesion",), **manifest: object
) -> None:
    """Write a converted set, sorted and numbered as the conversion does."""
    sides: dict[str, tuple[list[dict], list[dict]]] = defaultdict(lambda: ([], []))
    for number, frame in enumerate(sorted(frames, key=lambda frame: frame.key)):
        images, annotations = sides[frame.side]
        picture, (height, width) = pixels(frame.picture, frame.size), frame.size
        path = root / slug / "images" / f"{frame.key}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
        record = {
            "id": len(images) + 1, "file_name": f"{slug}/images/{path.name}", "height": height, "width": width,
            "dataset": slug, "group": f"{slug}/{frame.patient}", "split": frame.side, "source": f"raw/{path.name}",
            "phash": perceptual_hash(picture), "frame": number,
        }
        images.append(record if frame.label is None else {**record, "class": frame.label})
        for position, category in enumerate(frame.objects):
            mask = np.zeros(frame.size, bool)
            mask[4 + position:12, 5:20 + number % 9] = True
            rle = encode_mask(mask)
            x1, y1, x2, y2 = rle_box(rle)
            annotations.append({
                "id": len(annotations) + 1, "image_id": len(images), "category_id": categories.index(category) + 1,
                "segmentation": rle, "area": rle_area(rle), "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0,
            })
    for side, (images, annotations) in sides.items():
        for twin, names in (("", categories), (".agnostic", ("object",))):
            write_coco(root / f"{slug}/annotations/{side}.{slug}{twin}.json", {
                "images": images,
                "annotations": [{**item, "category_id": 1} if twin else item for item in annotations],
                "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
            })
    content = {"dataset": slug, "name": slug.upper(), "splits": {}, "annotations_sha256": {}, **manifest}
    (root / slug / "manifest.json").write_text(json.dumps(content), encoding="utf-8")


def info(slug: str, application: str, organ: str = "", **other: object) -> DatasetInfo:
    return DatasetInfo(slug=slug, name=slug, home="", licence="", application=application, organ=organ or application,
                       categories=("lesion",), group_key="patient", **other)  # type: ignore[arg-type]


def load(root: Path, name: str) -> dict:
    return json.loads((root / name).read_text(encoding="utf-8"))


def names_in(root: Path, name: str) -> set[str]:
    """Keys of the images of an annotation file, as ``slug/key``; none where there is no file."""
    if not (root / name).is_file():
        return set()
    return {image["file_name"].replace("/images/", "/").removesuffix(".png") for image in load(root, name)["images"]}


def checksums(root: Path) -> dict[str, str]:
    """SHA-256 of every file of a root."""
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("*")) if path.is_file()}
