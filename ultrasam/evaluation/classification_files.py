"""Files that a test of a classifier leaves: one line an object, the intervals, and the page."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultrasam.errors import DataError
from ultrasam.evaluation.classification import Classified, ClassRecord
from ultrasam.evaluation.classification_page import classification_page
from ultrasam.io.files import read_bytes, write_atomic

COLUMNS = (
    "dataset", "application", "group", "image_id", "image", "annotation_id", "prompt", "truth", "predicted", "correct",
)  # fmt: skip
PROBABILITY = "p_"


def write_classification(
    folder: str | Path, found: Classified, about: Mapping[str, Any], title: str
) -> list[Path]:
    """Write `per_object.csv`, `breakdown.json` and `report.html`, each whole or not at all; returns their paths.

    Args:
        folder: where to.
        found: the objects and their scores.
        about: what is known of the test, for the page.
        title: of the page.
    """
    folder = Path(folder)
    content = {
        "per_object.csv": per_object_text(found),
        "breakdown.json": json.dumps(plain(found.breakdown), indent=2) + "\n",
        "report.html": classification_page(found, about, title),
    }
    for name, text in content.items():
        write_atomic(folder / name, text.encode())
    return [folder / name for name in content]


def plain(value: Any) -> Any:
    """Replace numbers that JSON does not have (NaN, infinity) by None, at any depth."""
    if isinstance(value, Mapping):
        return {key: plain(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [plain(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def per_object_text(found: Classified) -> str:
    """Return the table: truth, prediction and probabilities of each object, in full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *(f"{PROBABILITY}{name}" for name in found.classes)])
    for r in found.records:
        writer.writerow([
            r.dataset, r.application, r.group, r.image_id, r.image_path, r.annotation_id, r.prompt,
            found.classes[r.label], found.classes[r.predicted], int(r.label == r.predicted),
            *map(repr, r.probabilities),
        ])  # fmt: skip
    return text.getvalue()


def read_classification(folder: str | Path) -> tuple[tuple[str, ...], list[ClassRecord]]:
    """Read the classes and the objects of a `per_object.csv` that a test of a classifier wrote.

    Raises:
        DataError: there is none, or it is not such a table.
    """
    path = Path(folder) / "per_object.csv"
    try:
        reader = csv.DictReader(io.StringIO(read_bytes(path).decode(), newline=""))
        names = list(reader.fieldnames or ())
        classes = tuple(name.removeprefix(PROBABILITY) for name in names[len(COLUMNS) :])
        if tuple(names[: len(COLUMNS)]) != COLUMNS or len(classes) < 2:
            raise DataError(f"{path} is no table of a classifier's test; give a folder that tools/test.py --out wrote")
        return classes, [
            ClassRecord(
                row["dataset"], row["application"], row["group"], int(row["image_id"]), row["image"],
                int(row["annotation_id"]), row["prompt"], classes.index(row["truth"]),
                tuple(float(row[f"{PROBABILITY}{name}"]) for name in classes),
            )
            for row in reader
        ]  # fmt: skip
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise DataError(f"{path}: a line is damaged ({error}); test again with tools/test.py --out") from error
