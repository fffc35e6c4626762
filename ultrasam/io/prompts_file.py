"""Prompts for many files: a table of points and boxes, or the boxes of any detector in COCO's JSON.

The table (CSV with a header; comma, semicolon or tab) has the columns file, frame, object, x, y, label, x1, y1, x2, y2
and name. Only `file` and x, y or x1, y1, x2, y2 are needed. A row is a point, a box or both; rows of the same file,
frame and object are one prompt. Without an object, a row is an object of its own. Coordinates are pixels of the
original image, boxes half-open.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ultrasam.errors import DataError
from ultrasam.io.files import read_bytes

Box = tuple[float, float, float, float]

COLUMNS = ("file", "frame", "object", "x", "y", "label", "x1", "y1", "x2", "y2", "name")
_POINT, _BOX = ("x", "y"), ("x1", "y1", "x2", "y2")
_LABELS = {"": 1, "1": 1, "0": 0, "pos": 1, "neg": 0}


@dataclass
class Wanted:
    """What is asked of one object.

    Attributes:
        points: (x, y) in pixels.
        labels: of the points, 1 inside and 0 outside.
        box: x1, y1, x2, y2 in pixels, half-open.
        name: of its class.
        where: the place in the file, for messages.
    """

    points: list[tuple[float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    box: Box | None = None
    name: str = "object"
    where: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the prompt, ready for JSON."""
        found: dict[str, Any] = {}
        if self.points:
            found.update(points=[list(point) for point in self.points], labels=list(self.labels))
        if self.box is not None:
            found["box"] = list(self.box)
        return found


@dataclass(frozen=True)
class PromptFile:
    """The prompts of a file.

    Attributes:
        path: the file.
        files: what it calls a scan, with "/", to frame to objects. Frame None is the one that the command chooses. A
            scan without objects is there too where the file lists it.
        left_out: number of boxes below the score that was asked for.
    """

    path: Path
    files: dict[str, dict[int | None, list[Wanted]]]
    left_out: int = 0

    def of(self, scans: Sequence[tuple[Path, str]]) -> tuple[dict[Path, dict[int | None, list[Wanted]]], list[str]]:
        """Find the scans that the file speaks of.

        A name stands for the scan whose path, seen from the folder that was given, is the same, or else for the only
        one whose path ends so.

        Args:
            scans: path, and path as seen from the folder that was given.

        Returns:
            scan to frame to objects; and one sentence for every name that no scan has, or several have.
        """
        by_relative = {relative: path for path, relative in scans}
        found: dict[Path, dict[int | None, list[Wanted]]] = {}
        problems = []
        for name, frames in self.files.items():
            matches = [by_relative[name]] if name in by_relative else _ending(name, [path for path, _ in scans])
            if len(matches) == 1:
                kept = found.setdefault(matches[0], {})
                for frame, objects in frames.items():
                    kept.setdefault(frame, []).extend(objects)
            elif any(frames.values()):
                many = f"{len(matches)} of the scans end with" if matches else "none of the scans is"
                problems.append(f"{self.path}: {many} {name!r}; give the path from the folder of the scans")
        return found, problems


def read_prompts(path: str | Path, min_score: float = -math.inf, images: str | Path | None = None) -> PromptFile:
    """Read a table (.csv, .tsv) or COCO JSON (.json).

    JSON is an annotation document with "images" and "annotations", whose boxes and names of categories are taken, or a
    list of detections as COCO's tools evaluate them, whose images are named by "file_name" or by the document
    `images`. Boxes are x, y, width, height; parts outside of the image are cut off where its size is known.

    Args:
        path: the file.
        min_score: boxes with a lower "score" are left out; those without a score are taken.
        images: COCO document that a list of detections refers to.

    Raises:
        DataError: the file is missing, damaged, or says something that is no prompt; the line or entry is named.
    """
    path = Path(path)
    data = read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: UTF-8 text was expected, found byte {error.start} that is none; save it as UTF-8") \
            from error  # fmt: skip
    if path.suffix.lower() == ".json" or text.lstrip()[:1] in ("{", "["):
        return _coco(path, _json(path, text), min_score, images)
    return PromptFile(path, _table(path, text))


def _ending(name: str, paths: Sequence[Path]) -> list[Path]:
    parts = PurePosixPath(name).parts
    return [path for path in paths if parts and path.as_posix().split("/")[-len(parts):] == list(parts)]


def _name_of(value: str) -> str:
    """Return a file's name with slashes and without ./ in front."""
    return PurePosixPath(value.strip().replace("\\", "/")).as_posix()


def _table(path: Path, text: str) -> dict[str, dict[int | None, list[Wanted]]]:
    head = text.split("\n", 1)[0]
    separator = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise DataError(f"{path}: a table (CSV) was expected, found in line {reader.line_num}: {error}") from error
    columns = [cell.strip().lower() for cell in rows[0]] if rows else []
    unknown = [name for name in columns if name not in COLUMNS]
    if "file" not in columns or unknown or len(set(columns)) < len(columns):
        raise DataError(f"{path}: a first line with columns out of {', '.join(COLUMNS)}, each once, was expected, "
                        f"found {', '.join(map(repr, columns[:12])) or 'nothing'}")  # fmt: skip
    found: dict[str, dict[int | None, list[Wanted]]] = {}
    numbered: dict[tuple[str, int | None, str], Wanted] = {}
    for number, cells in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in cells):
            continue
        where = f"{path}, line {number}"
        if len(cells) != len(columns):
            raise DataError(f"{where}: {len(columns)} cells were expected, found {len(cells)}")
        row = {column: cell.strip() for column, cell in zip(columns, cells, strict=True)}
        file, frame = _name_of(row["file"]), _frame(row.get("frame", ""), where)
        if not row["file"]:
            raise DataError(f"{where}: the name of a file was expected in the column file, found nothing")
        objects, key = found.setdefault(file, {}).setdefault(frame, []), (file, frame, row.get("object", ""))
        wanted = numbered.get(key)
        if wanted is None:
            wanted = Wanted(where=where)
            objects.append(wanted)
            if key[2]:
                numbered[key] = wanted
        _add(wanted, row, where)
    return found


def _add(wanted: Wanted, row: Mapping[str, str], where: str) -> None:
    """Add a row's point and box to its object."""
    point, box = ([row.get(name, "") for name in names] for names in (_POINT, _BOX))
    if not any(point) and not any(box):
        raise DataError(f"{where}: a point (x, y) or a box (x1, y1, x2, y2) was expected, found neither")
    if any(point):
        label = row.get("label", "").lower()
        if label not in _LABELS:
            raise DataError(f"{where}: a label 1 (inside), 0 (outside), pos or neg was expected, found {label!r}")
        wanted.points.append((_number(point[0], "x", where), _number(point[1], "y", where)))
        wanted.labels.append(_LABELS[label])
    if any(box):
        x1, y1, x2, y2 = (_number(cell, name, where) for cell, name in zip(box, _BOX, strict=True))
        if wanted.box not in (None, (x1, y1, x2, y2)):
            raise DataError(f"{where}: one box was expected for object {row['object']!r}, found a second; give objects "
                            "numbers of their own")  # fmt: skip
        wanted.box = (x1, y1, x2, y2)
    wanted.name = row.get("name", "") or wanted.name


def _number(cell: str, column: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: a number was expected in the column {column}, found {cell!r}")
    return value


def _frame(cell: str, where: str) -> int | None:
    if cell == "":
        return None
    if not (cell.isascii() and cell.isdigit()):
        raise DataError(f"{where}: a frame is a whole number from 0, found {cell!r}")
    return int(cell)


def _json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path}: JSON was expected, found damage ({error}); get the file again") from error


def _coco(path: Path, document: Any, min_score: float, images: str | Path | None) -> PromptFile:
    listed, entries, names = _parts(path, document, images)
    found: dict[str, dict[int | None, list[Wanted]]] = {}
    for image in listed.values():
        found.setdefault(_name_of(image["file_name"]), {}).setdefault(image.get("frame"), [])
    left_out = 0
    for number, entry in enumerate(entries, 1):
        where = f"{path}, entry {number}"
        if not isinstance(entry, Mapping):
            raise DataError(f"{where}: a detection with bbox was expected, found {type(entry).__name__}")
        score = entry.get("score")
        if score is not None and (isinstance(score, bool) or not isinstance(score, (int, float))):
            raise DataError(f"{where}: a number was expected as score, found {score!r}")
        if score is not None and not score >= min_score:
            left_out += 1
            continue
        image = _image_of(entry, listed, where)
        category = entry.get("category_id")
        if isinstance(category, (list, dict)):
            raise DataError(f"{where}: a number was expected as category_id, found {category}")
        name = names.get(category, str(entry.get("category_name") or "object"))
        wanted = Wanted(box=_box(entry.get("bbox"), image, where), name=name, where=where)
        found.setdefault(_name_of(image["file_name"]), {}).setdefault(image.get("frame"), []).append(wanted)
    return PromptFile(path, found, left_out)


def _parts(path: Path, document: Any, images: str | Path | None) -> tuple[dict[Any, Any], list[Any], dict[Any, str]]:
    """Return images by id, detections, and names of categories by id."""
    if isinstance(document, Mapping):
        described, entries = document, document.get("annotations")
    else:
        described, entries = {}, document
        if images is not None:
            described = _json(Path(images), read_bytes(images).decode("utf-8-sig", "replace"))
    if not isinstance(entries, list) or not isinstance(described, Mapping):
        raise DataError(f"{path}: COCO JSON (a document with 'annotations', or a list of detections) was expected, "
                        f"found {type(document).__name__}")  # fmt: skip
    listed = {}
    for image in _mappings(path, described, "images"):
        frame = image.get("frame")
        if not isinstance(image.get("file_name"), str) or not (frame is None or (type(frame) is int and frame >= 0)):
            raise DataError(f"{path}: every image needs a file_name, and a frame that is a whole number, found {image}")
        listed[image.get("id")] = image
    names = {category.get("id"): str(category.get("name", "object"))
             for category in _mappings(path, described, "categories")}  # fmt: skip
    return listed, entries, names


def _mappings(path: Path, document: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
    values = document.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, Mapping) for value in values):
        raise DataError(f"{path}: a list of objects was expected under {key!r}, found {str(values)[:60]}")
    for value in values:
        if isinstance(value.get("id"), (list, dict)):
            raise DataError(f"{path}: an id under {key!r} must be a number or text, found {value['id']}")
        yield value


def _image_of(entry: Mapping[str, Any], listed: Mapping[Any, Any], where: str) -> Mapping[str, Any]:
    number = entry.get("image_id")
    if not isinstance(number, (list, dict)) and number in listed:
        found: Mapping[str, Any] = listed[number]
        return found
    if isinstance(entry.get("file_name"), str):
        return entry
    if isinstance(number, str) and not listed:
        return {"file_name": number}
    raise DataError(f"{where}: the image {number!r} is not in the list of images; give the document that has it with "
                    "--prompt-images")  # fmt: skip


def _box(values: Any, image: Mapping[str, Any], where: str) -> Box:
    """Return x1, y1, x2, y2 of COCO's x, y, width, height, cut at the image's sides where they are known."""
    numbers = isinstance(values, list) and len(values) == 4 and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) for value in values)
    if not numbers or values[2] <= 0 or values[3] <= 0:
        raise DataError(f"{where}: a bbox x, y, width, height with positive sides was expected, found {values!r}")
    x1, y1, x2, y2 = values[0], values[1], values[0] + values[2], values[1] + values[3]
    width, height = image.get("width"), image.get("height")
    if isinstance(width, int) and isinstance(height, int):
        x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
        if x1 >= x2 or y1 >= y2:
            raise DataError(f"{where}: the bbox {values} lies outside of its image of {width} x {height}")
    return float(x1), float(y1), float(x2), float(y2)
