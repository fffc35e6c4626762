"""What a test leaves behind: every object's scores, the predictions, and all that is needed to get them again."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ultrasam.errors import DataError
from ultrasam.evaluation.coco import IOU_THRESHOLDS, IOU_TYPES
from ultrasam.evaluation.files import COLUMNS, write_per_object, write_predictions
from ultrasam.evaluation.measures import MEASURES, Measures
from ultrasam.evaluation.records import ObjectRecord


@dataclass(frozen=True)
class Evaluation:
    """The objects of one test with their scores.

    Attributes:
        records: distinct objects, sorted by identity.
        measures: their scores, in the same order.
        breakdown: means and intervals, see `ultrasam.evaluation.breakdown`.
    """

    records: Sequence[ObjectRecord]
    measures: Sequence[Measures]
    breakdown: Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One object of a `per_object.csv`.

    Attributes:
        key: (dataset, image id, image name, annotation id, repeat): the same in the results of another model.
        group: data set and patient or video.
        values: score by name; NaN where undefined.
        score: predicted IoU.
        hits: by "segm" and "bbox", whether the prediction meets an object at each threshold; None without one.
    """

    key: tuple[str, str, str, str, str]
    group: str
    values: dict[str, float]
    score: float
    hits: dict[str, npt.NDArray[np.bool_] | None]


def write_objects(folder: str | Path, evaluation: Evaluation) -> list[Path]:
    """Write the predictions and `per_object.csv`; each file whole or not at all. Returns the paths."""
    return [
        *write_predictions(folder, evaluation.records),
        write_per_object(folder, evaluation.records, evaluation.measures),
    ]


def read_per_object(folder: str | Path) -> list[Row]:
    """Read the `per_object.csv` of a result folder.

    Raises:
        DataError: there is none, it is not such a table, or an object is in it twice.
    """
    path = Path(folder) / "per_object.csv"
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            absent = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if absent:
                raise DataError(f"{path}: the columns {absent} are missing; write it again with tools/test.py --out")
            rows = [_row(line, path) for line in reader]
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; give a folder that tools/test.py --out wrote") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}); write it again with tools/test.py --out") from error
    if len({row.key for row in rows}) != len(rows):
        raise DataError(f"{path}: an object stands in more than one line; write it again with tools/test.py --out")
    return rows


def read_metrics(folder: str | Path) -> dict[str, Any]:
    """Read the `metrics.json` of a result folder.

    Raises:
        DataError: there is none or it is damaged.
    """
    path = Path(folder) / "metrics.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; give a folder that tools/test.py --out wrote") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); write it again with tools/test.py --out") from error
    if not isinstance(content, dict) or "metrics" not in content:
        raise DataError(f"{path}: the result of a test was expected, found something else")
    return content


def _row(line: Mapping[str, str], path: Path) -> Row:
    try:
        values = {name: float(line[name]) if line[name] else float("nan") for name in MEASURES}
        key = (line["dataset"], line["image_id"], Path(line["image"]).name, line["annotation_id"], line["repeat"])
        hits = {name: _hits(line[f"{name}_hits"]) for name in IOU_TYPES}
        return Row(key, f"{line['dataset']}/{line['group']}", values, float(line["score"]), hits)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: a line is damaged ({error}); write it again with tools/test.py --out") from error


def _hits(text: str) -> npt.NDArray[np.bool_] | None:
    if not text:
        return None
    if len(text) != len(IOU_THRESHOLDS) or set(text) - {"0", "1"}:
        raise ValueError(f"{len(IOU_THRESHOLDS)} flags of 0 and 1 were expected, found {text!r}")
    return np.array([character == "1" for character in text])
