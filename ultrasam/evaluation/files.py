"""Files that an evaluation leaves: predictions as COCO results, and one line an object."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

from ultrasam.evaluation.coco import CATEGORY
from ultrasam.evaluation.records import ObjectRecord
from ultrasam.evaluation.summary import xywh
from ultrasam.geometry.rle import rle_area
from ultrasam.io.files import write_atomic

COLUMNS = (
    "dataset", "group", "image_id", "image", "annotation_id", "prompt", "score", "iou", "dice", "truth_area",
    "mask_area", "x1", "y1", "x2", "y2",
)  # fmt: skip


def write_predictions(prefix: str | Path, records: Sequence[ObjectRecord]) -> list[Path]:
    """Write `<prefix>.<dataset>.predictions.json` in COCO's results format, one file a data set.

    Image ids are those of the annotation file, so `COCO(annotation_file).loadRes(path)` reads it. The
    category is 1 everywhere (class-agnostic); `annotation_id` tells which object was prompted. Returns the
    paths.
    """
    rows: dict[str, list[dict[str, object]]] = {}
    for record in records:
        listed = rows.setdefault(record.dataset, [])
        if record.mask is None:
            continue
        listed.append(
            {
                "image_id": record.image_id,
                "category_id": CATEGORY,
                "bbox": xywh(record.box),
                "score": record.score,
                "segmentation": record.mask,
                "annotation_id": record.annotation_id,
            }
        )
    paths = []
    for slug, listed in rows.items():
        path = Path(f"{prefix}.{slug}.predictions.json" if slug else f"{prefix}.predictions.json")
        write_atomic(path, (json.dumps(listed, separators=(",", ":")) + "\n").encode())
        paths.append(path)
    return paths


def write_per_object(prefix: str | Path, records: Sequence[ObjectRecord]) -> Path:
    """Write `<prefix>.per_object.csv`: one line an object with its overlap, areas (pixels) and predicted box.

    `iou` and `dice` are empty where truth and prediction are both empty. Returns the path.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for r in records:
        iou = r.iou
        overlap = ("", "") if math.isnan(iou) else (repr(iou), repr(r.dice))
        writer.writerow(
            [r.dataset, r.group, r.image_id, r.image_path, r.annotation_id, r.prompt, repr(r.score), *overlap,
             rle_area(r.truth), r.mask_area, *r.box]
        )  # fmt: skip
    path = Path(f"{prefix}.per_object.csv")
    write_atomic(path, text.getvalue().encode())
    return path
