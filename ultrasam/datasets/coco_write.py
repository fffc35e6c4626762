"""Writing COCO files: the same bytes for the same content, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ultrasam.errors import DataError
from ultrasam.io.files import write_atomic


def write_coco(path: str | Path, collection: Mapping[str, Any]) -> None:
    """Write a COCO file, whole or not at all, the same bytes for the same content.

    Records are sorted by id, keys by name, one record a line. NumPy numbers and arrays, bytes (RLE counts)
    and paths are accepted.

    Args:
        path: the JSON file; its folder is created.
        collection: ``images``, ``annotations``, ``categories`` and any other keys.

    Raises:
        DataError: a value that JSON cannot hold (NaN included), or the file cannot be written.
    """
    try:
        parts = [f"{json.dumps(key)}: {_section(collection[key])}" for key in sorted(collection)]
    except (TypeError, ValueError) as error:
        raise DataError(f"{path} cannot be written as JSON ({error}); correct the value first") from error
    write_atomic(path, ("{\n" + ",\n".join(parts) + "\n}\n").encode("utf-8"))


def _section(value: Any) -> str:
    if not isinstance(value, (list, tuple)) or not all(isinstance(record, Mapping) for record in value):
        return _dump(value)
    records = value
    if all("id" in record for record in value):
        records = sorted(value, key=lambda record: _sort_key(record["id"]))
    return "[\n" + ",\n".join(_dump(record) for record in records) + "\n]" if records else "[]"


def _sort_key(value: Any) -> tuple[int, int, str]:
    """Numbers before texts, so that mixed ids still have an order."""
    return (0, int(value), "") if isinstance(value, (int, np.integer)) else (1, 0, str(value))


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, bytes):
        return value.decode("ascii")
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} {value!r} is not a JSON value")
