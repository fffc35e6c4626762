"""What a reader does to the objects of a file: click, box, undo, redo, delete, name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ultrasam.errors import PromptError
from ultrasam.web.engine import Box, Engine
from ultrasam.web.limits import Limits, WebError
from ultrasam.web.study import NAME_LENGTH, Item, Mark, Point, Study

ACTIONS = ("point", "box", "undo", "redo", "delete", "clear", "name", "category")


def apply(engine: Engine, limits: Limits, study: Study, frame: int, edit: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out one edit and describe what changed.

    Args:
        engine: predicts.
        limits: of the server.
        study: the file, whose lock is taken.
        frame: the frame that is looked at.
        edit: ``action``; ``object`` (number, None for a new one); ``x``, ``y``, ``inside`` of a point; ``box``;
            ``text`` of a name or class.

    Returns:
        ``changed``: the number of the object; ``object``: it as `describe` gives it, None where it is gone; ``frame``:
        where that was; ``undo`` and ``redo``: whether there is more to take back or make again.

    Raises:
        WebError: an object that is not there, too many of them, nothing to undo.
        PromptError: a prompt that does not fit the image.
    """
    action = edit["action"]
    with study.lock:
        if action in ("undo", "redo"):
            step = study.undo() if action == "undo" else study.redo()
            frame = step.frame
            before, after = (step.after, step.before) if action == "undo" else (step.before, step.after)
        else:
            before = None if edit.get("object") is None else study.item(int(edit["object"]))
            after = _edited(engine, limits, study, frame, before, edit)
            study.change(frame, before, after)
        changed = after or before
        return {
            "changed": None if changed is None else changed.number,
            "object": None if after is None else describe(after, frame),
            "frame": frame,
            "undo": study.can_undo,
            "redo": study.can_redo,
        }


def state(study: Study, frame: int) -> dict[str, Any]:
    """Return all objects as seen on a frame, and whether there is something to undo."""
    with study.lock:
        return {
            "frame": frame,
            "objects": [describe(item, frame) for item in study.items],
            "undo": study.can_undo,
            "redo": study.can_redo,
        }


def describe(item: Item, frame: int) -> dict[str, Any]:
    """Return an object for JSON, with its mask on one frame."""
    mark = item.marks.get(frame)
    return {
        "number": item.number,
        "name": item.name,
        "category": item.category,
        "class": None if mark is None or mark.outcome is None else dict(mark.outcome),
        "frames": sorted(item.marks),
        "mark": None if mark is None else _mark(mark),
    }


def _mark(mark: Mark) -> dict[str, Any]:
    return {
        "points": [list(point) for point in mark.points],
        "box": None if mark.box is None else list(mark.box),
        "score": round(mark.score, 4),
        "rle": mark.rle["counts"],
        "measures": dict(mark.measures),
    }


def _edited(
    engine: Engine, limits: Limits, study: Study, frame: int, item: Item | None, edit: Mapping[str, Any]
) -> Item | None:
    """Return the object after an edit, None when it is deleted."""
    action = edit["action"]
    if action == "point":
        item = item or study.new_item()
        mark = item.marks.get(frame)
        points = (*(mark.points if mark else ()), _point(study, edit))
        if len(points) > limits.points:
            raise WebError(409, f"One object takes at most {limits.points} points on a frame; undo some or start anew.")
        return _predicted(engine, study, frame, item, points, mark.box if mark else None, mark)
    if action == "box":
        item = item or study.new_item()
        mark = item.marks.get(frame)
        return _predicted(engine, study, frame, item, mark.points if mark else (), _box(study, edit), None)
    if item is None:
        raise WebError(400, "Choose an object in the list first.")
    if action == "delete":
        return None
    if action == "clear":
        return replace(item, marks={number: mark for number, mark in item.marks.items() if number != frame})
    text = " ".join(str(edit.get("text") or "").split())[:NAME_LENGTH]
    if action == "name":
        return replace(item, name=text or f"Object {item.number}")
    return replace(item, category=text)


def _predicted(
    engine: Engine,
    study: Study,
    frame: int,
    item: Item,
    points: tuple[Point, ...],
    box: Box | None,
    before: Mark | None,
) -> Item:
    if box is None and not any(point[2] for point in points):
        raise PromptError("Click inside the object first, or drag a box around it; a point outside says nothing alone.")
    session = engine.session(study, frame)
    logits = before.logits if before is not None and engine.model.mask_prompt else None
    try:
        return item.with_mark(frame, engine.predict(session, points, box, logits))
    except PromptError as error:
        # The sentence names an option of Python, the page has a switch.
        raise PromptError(str(error).replace("use clip=False", 'switch "Field of view only" off')) from error


def _point(study: Study, edit: Mapping[str, Any]) -> Point:
    height, width = study.scan.size
    x, y = _number(edit, "x"), _number(edit, "y")
    if not (0 <= x < width and 0 <= y < height):
        raise PromptError(f"The point ({x:.0f}, {y:.0f}) lies outside of the image of {width} x {height} pixels.")
    return x, y, 1 if edit.get("inside", True) else 0


def _box(study: Study, edit: Mapping[str, Any]) -> Box:
    """Return the box inside the image; what a hand drags beyond the border is cut off."""
    height, width = study.scan.size
    corners = edit.get("box")
    if not isinstance(corners, (list, tuple)) or len(corners) != 4 or not all(math.isfinite(v) for v in corners):
        raise PromptError(f"A box has four numbers x1, y1, x2, y2 in pixels, found {corners!r}.")
    x1, x2 = sorted((min(max(float(corners[0]), 0), width), min(max(float(corners[2]), 0), width)))
    y1, y2 = sorted((min(max(float(corners[1]), 0), height), min(max(float(corners[3]), 0), height)))
    if x2 - x1 < 1 or y2 - y1 < 1:
        raise PromptError("The box is less than a pixel wide inside the image; drag a larger one.")
    return x1, y1, x2, y2


def _number(edit: Mapping[str, Any], name: str) -> float:
    value = edit.get(name)
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise PromptError(f"A point has two numbers x, y in pixels, found {name} = {value!r}.")
    return float(value)
