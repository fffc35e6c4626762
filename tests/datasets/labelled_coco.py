"""Small COCO files with classes, for the tests of datasets."""

import json

import numpy as np

from ultrasam.geometry.rle import encode_mask


def coco_file(folder, images, categories=("benign", "malignant")):
    """Write a COCO file; an image is (name, class or None, categories of its objects)."""
    mask = np.zeros((8, 10), bool)
    mask[2:5, 3:7] = True
    records, annotations = [], []
    for number, (name, stated, objects) in enumerate(images, 1):
        record = {"id": number, "file_name": name, "width": 10, "height": 8, "dataset": "set", "group": f"p{number}"}
        records.append(record if stated is None else {**record, "class": stated})
        for category in objects:
            annotations.append({"id": len(annotations) + 1, "image_id": number, "iscrowd": 0,
                                "category_id": categories.index(category) + 1,
                                "segmentation": encode_mask(mask)})  # fmt: skip
    path = folder / "data.json"
    named = [{"id": n, "name": name} for n, name in enumerate(categories, 1)]
    path.write_text(json.dumps({"images": records, "annotations": annotations, "categories": named}))
    return path
