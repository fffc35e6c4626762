"""Miniature sets with classes and values, laid out as the configurations of the downstream tasks expect them."""

import json

import numpy as np
import torch
from mini_batches import packed

from ultrasam.geometry.rle import encode_mask
from ultrasam.io.images import write_png

CLASSES = {
    "bus_bra": ["benign", "malignant"],
    "mmotu_2d": [
        "chocolate_cyst", "serous_cystadenoma", "teratoma", "theca_cell_tumor", "simple_cyst", "normal_ovary",
        "mucinous_cystadenoma", "high_grade_serous",
    ],
    "gist514_db": ["lmym", "gist"],
}  # fmt: skip
# Images of each split; the first of every split has no object and, in gist514_db, no class.
COUNTS = {"train": 5, "val": 2, "test": 4}
HEIGHT, WIDTH = 24, 32


def ellipse(rng):
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    center, radius = rng.uniform(0.35, 0.65, 2) * (HEIGHT, WIDTH), rng.uniform(4, 8, 2)
    return ((y - center[0]) / radius[0]) ** 2 + ((x - center[1]) / radius[1]) ** 2 <= 1


def write_sets(folder):
    """Write the three sets of the paper's tables below a folder, one or two objects an image."""
    rng = np.random.default_rng(0)
    for slug, classes in CLASSES.items():
        categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
        for split, count in COUNTS.items():
            images, annotations = [], []
            for number in range(count):
                label = number % len(classes)
                name = f"{slug}/images/{split}_{number}.png"
                picture = rng.integers(0, 100, (HEIGHT, WIDTH, 3), dtype=np.uint8)
                image = {"id": number + 1, "file_name": name, "width": WIDTH, "height": HEIGHT, "dataset": slug,
                         "group": f"{slug}/{split}{number // 2}"}  # fmt: skip
                if number or slug != "gist514_db":
                    image["class"] = classes[label]
                for _ in range(0 if number == 0 else 1 + number % 2):
                    mask = ellipse(rng)
                    picture[mask] += np.uint8(100)
                    annotations.append({"id": len(annotations) + 1, "image_id": number + 1, "iscrowd": 0,
                                        "category_id": label + 1, "segmentation": encode_mask(mask)})  # fmt: skip
                write_png(folder / name, picture)
                images.append(image)
            path = folder / slug / "annotations" / f"{split}.{slug}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return folder


def write_hc18(folder, count=40):
    """Write a table of head circumferences and its images, each a circle of that size."""
    rng = np.random.default_rng(1)
    lines = ["filename,pixel size(mm),head circumference (mm)", "999_HC.png,0.1,100.0"]
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for number in range(count):
        radius, pixel = rng.uniform(4, 10), rng.uniform(0.5, 2)
        picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        picture[(y - HEIGHT / 2) ** 2 + (x - WIDTH / 2) ** 2 <= radius**2] = 200
        name = f"{number:03d}_HC.png"
        write_png(folder / "training_set" / name, picture)
        lines.append(f"{name},{pixel:.6f},{2 * np.pi * radius * pixel:.4f}")
    (folder / "training_set_pixel_size_and_HC.csv").write_text("\n".join(lines) + "\n")
    return folder


def labelled_batch(*counts, classes=("benign", "malignant"), prompt="mixed"):
    """Return a batch of images with ``counts`` prompted objects, object k of class k modulo the classes."""
    items = [packed(seed, count, prompt) for seed, count in enumerate(counts)]
    for item in items:
        sample = item["data_samples"]
        sample.gt_instances.labels = torch.arange(len(sample.gt_instances.labels)) % len(classes)
        sample.set_metainfo({"classes": tuple(classes)})
    return {key: [item[key] for item in items] for key in ("inputs", "data_samples")}


def image_batch(count, classes=("benign", "malignant")):
    """Return a batch of images with one class each."""
    batch = labelled_batch(*[1] * count, classes=classes)
    for number, sample in enumerate(batch["data_samples"]):
        sample.gt_instances = sample.gt_instances[:1]
        sample.gt_instances.labels = torch.tensor([number % len(classes)])
    return batch
