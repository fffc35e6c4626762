"""Files that an evaluation leaves: predictions as COCO results, and one line an object."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from ultrasam.evaluation.coco import CATEGORY
from ultrasam.evaluation.records import ObjectRecord
from ultrasam.evaluation.summary import xywh
from ultrasam.geometry.rle import rle_area

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
        _write_whole(path, json.dumps(listed, separators=(",", ":")) + "\n")
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
    _write_whole(path, text.getvalue())
    return path


def _write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
