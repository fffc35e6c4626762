"""Files that an evaluation leaves: predictions as COCO results, and one line an object."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ultrasam.evaluation.coco import CATEGORY, IOU_TYPES
from ultrasam.evaluation.measures import MEASURES, Measures, size_of
from ultrasam.evaluation.precision_interval import Flags, hits_of
from ultrasam.evaluation.records import ObjectRecord
from ultrasam.evaluation.summary import xywh
from ultrasam.io.files import write_atomic

COLUMNS = (
    "dataset", "application", "group", "image_id", "image", "annotation_id", "repeat", "prompt", "size", "score",
    "truth_area", "mask_area", "x1", "y1", "x2", "y2", *MEASURES, "segm_hits", "bbox_hits",
)  # fmt: skip


def write_predictions(folder: str | Path, records: Sequence[ObjectRecord]) -> list[Path]:
    """Write `predictions.<dataset>.json` in COCO's results format, one file a data set.

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
    return write_coco_results(folder, rows)


def write_coco_results(folder: str | Path, rows: Mapping[str, Sequence[Mapping[str, object]]]) -> list[Path]:
    """Write `predictions.<dataset>.json` of the rows of each data set; returns the paths."""
    paths = []
    for slug, listed in rows.items():
        path = Path(folder) / (f"predictions.{slug}.json" if slug else "predictions.json")
        write_atomic(path, (json.dumps(listed, separators=(",", ":")) + "\n").encode())
        paths.append(path)
    return paths


def write_per_object(folder: str | Path, records: Sequence[ObjectRecord], measures: Sequence[Measures]) -> Path:
    """Write `per_object.csv`: one line an object with areas (pixels), predicted box and every score.

    A score that is not defined is an empty cell. `segm_hits` and `bbox_hits` say for each of COCO's ten thresholds
    whether the prediction meets an object ("1111100000"), from which average precision follows. Numbers are written
    so that reading them gives the same float. Returns the path.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    hits = [[_flags(flags) for flags in hits_of(records, iou_type)] for iou_type in IOU_TYPES]
    for r, found, *met in zip(records, measures, *hits, strict=True):
        scores = [getattr(found, name) for name in MEASURES]
        writer.writerow(
            [r.dataset, r.application, r.group, r.image_id, r.image_path, r.annotation_id, r.repeat, r.prompt,
             size_of(r), repr(r.score), r.truth_area, r.mask_area, *(float(v) for v in r.box),
             *("" if math.isnan(score) else repr(float(score)) for score in scores), *met]
        )  # fmt: skip
    path = Path(folder) / "per_object.csv"
    write_atomic(path, text.getvalue().encode())
    return path


def _flags(flags: Flags | None) -> str:
    """Return "1111100000" for ten flags, and nothing for no prediction."""
    return "" if flags is None else "".join("1" if flag else "0" for flag in flags)
