"""The two mask orders on the same predictions: enlarge then threshold, or threshold then enlarge (as released).

Logits, scores and prompts are the same; only the masks and their boxes differ, so the difference is that of the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from ultrasam.errors import DataError
from ultrasam.evaluation.coco import IOU_TYPES
from ultrasam.evaluation.compare import compare_rows
from ultrasam.evaluation.measures import MEASURES
from ultrasam.evaluation.precision_interval import hits_of
from ultrasam.evaluation.records import ObjectRecord, measured
from ultrasam.evaluation.results import Evaluation, Row
from ultrasam.evaluation.summary import summarise_by_dataset


def other_order(records: Sequence[ObjectRecord]) -> str:
    """Return the name of the other order that the objects carry, empty where they carry none.

    Raises:
        DataError: some objects carry another one, or none.
    """
    found = sorted({record.other_order for record in records})
    if len(found) > 1:
        raise DataError(
            f"The objects of a test carry masks of different orders ({', '.join(map(repr, found))}): test all data "
            "sets with one model."
        )
    return found[0] if found else ""


def in_other_order(records: Sequence[ObjectRecord]) -> list[ObjectRecord]:
    """Return the objects with the masks and boxes of the other order in place of their own."""
    return measured([replace(r, mask=r.other_mask, box=r.other_box, other_order="", other_mask=None) for r in records])


def other_metrics(records: Sequence[ObjectRecord], iou_types: Sequence[str] = IOU_TYPES) -> dict[str, float]:
    """Return the scores of the other order as `released_order/<score>`, nothing where there is none."""
    order = other_order(records)
    if not order:
        return {}
    found = summarise_by_dataset(in_other_order(records), iou_types)
    return {f"{order}_order/{name}": value for name, value in found.items()}


def compare_orders(first: Evaluation, second: Evaluation, seed: int = 0) -> dict[str, Any]:
    """Compare the evaluations of the configured and of the other order.

    Returns:
        ``configured`` and ``other`` (names), ``parts`` (the other order's ``overall`` and ``datasets``) and
        ``difference``, by score: other minus configured, paired by object (see `ultrasam.evaluation.compare`).
    """
    order = other_order(first.records)
    compared = compare_rows(rows_of(first), rows_of(second), seed=seed)
    return {
        "configured": "logits" if order == "released" else "released",
        "other": order,
        "parts": {name: second.breakdown[name] for name in ("overall", "datasets")},
        "difference": {name: asdict(item) for name, item in compared.items()},
    }


def rows_of(evaluation: Evaluation) -> list[Row]:
    """Return what `per_object.csv` would hold of the objects."""
    records = evaluation.records
    hits = {iou_type: hits_of(records, iou_type) for iou_type in IOU_TYPES}
    return [
        Row(
            (r.dataset, str(r.image_id), r.image_path, str(r.annotation_id), str(r.repeat)),
            f"{r.dataset}/{r.group}",
            {name: getattr(found, name) for name in MEASURES},
            r.score,
            {iou_type: hits[iou_type][number] for iou_type in IOU_TYPES},
        )
        for number, (r, found) in enumerate(zip(records, evaluation.measures, strict=True))
    ]


def order_folder(records: Sequence[ObjectRecord]) -> str:
    """Return the folder, below that of the results, for the files of the other order of these (first) records."""
    return f"{other_order(records)}_order"
