"""Writing predicted masks as pictures, COCO JSON and tables.

Of overlapping objects a label map can show one only: the smallest object lies on top (of equal ones the later), so
that a lesion in an organ stays visible. The masks of each object, whole, are in files of their own and in the JSON.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from ultrasam.errors import DataError
from ultrasam.geometry.measure import Measures, measure
from ultrasam.geometry.rle import encode_mask
from ultrasam.io.files import write_atomic
from ultrasam.io.images import write_png

Stack = NDArray[np.bool_]
Labels = NDArray[np.uint8] | NDArray[np.uint16]

MAX_OBJECTS = 65535
# Colours that colour-blind readers tell apart (Okabe and Ito), repeated from the ninth object on in darker shades.
_COLOURS = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167), (0, 114, 178),
            (255, 255, 255))  # fmt: skip
_COLUMNS = ("file", "frame", "object", "name", "score", "area_px", "area_mm2", "long_px", "long_mm", "short_px",
            "short_mm", "perimeter_px", "perimeter_mm", "centroid_x", "centroid_y", "x1", "y1", "x2", "y2")  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """The masks of one frame, ready to be written.

    Attributes:
        file_name: of the scan, as it is to stand in the JSON and the table.
        masks: (N, H, W) bool.
        scores: (N,) predicted IoU.
        frame: number of the frame.
        spacing: mm along (rows, columns), if known.
        names: of the objects' classes, N; "object" where not given.
        prompts: what was asked for each object, N, ready for JSON; may be left out.
    """

    file_name: str
    masks: Stack
    scores: NDArray[np.floating[Any]] | Sequence[float]
    frame: int = 0
    spacing: tuple[float, float] | None = None
    names: Sequence[str] = ()
    prompts: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    def name(self, index: int) -> str:
        """Return the class of an object."""
        return self.names[index] if self.names else "object"

    def measures(self) -> list[Measures]:
        """Measure every mask."""
        return [measure(mask, self.spacing) for mask in self.masks]


def label_map(masks: Stack, depth: int | None = None) -> tuple[Labels, int]:
    """Return one map of several masks: 0 outside, 1 to N the objects in their order.

    Args:
        masks: (N, H, W) bool.
        depth: highest number that the map must be able to hold; N by default.

    Returns:
        uint8 (H, W), or uint16 beyond 255 objects; and the number of pixels that belong to several objects. Of these
        the smallest object is on top, of equal ones the later.

    Raises:
        DataError: another shape or type, or more than 65535 objects.
    """
    masks = np.asarray(masks)
    if masks.ndim != 3 or masks.dtype != np.bool_:
        raise DataError(f"masks to write are bool (objects, height, width), found {masks.dtype} {masks.shape}")
    highest = max(depth or 0, len(masks))
    if highest > MAX_OBJECTS:
        raise DataError(f"a label map holds up to {MAX_OBJECTS} objects, found {highest}; write fewer at a time")
    labels: Labels = np.zeros(masks.shape[1:], np.uint8 if highest <= 255 else np.uint16)
    areas = masks.sum(axis=(1, 2))
    for index in sorted(range(len(masks)), key=lambda index: (-areas[index], index)):
        labels[masks[index]] = index + 1
    return labels, int(areas.sum() - np.count_nonzero(labels))


def write_label_png(path: str | Path, masks: Stack) -> int:
    """Write a label map as PNG, whole or not at all.

    Up to 255 objects it has a colour table, so that it can be looked at; its values are still 0 to N
    (`PIL.Image.open`, or `ultrasam.io.images.read_mask(path, palette="index")`). Beyond, it is 16-bit grey.

    Args:
        path: the file.
        masks: (N, H, W) bool.

    Returns:
        the number of pixels that belong to several objects; see :func:`label_map`.

    Raises:
        DataError: as :func:`label_map`, or the file cannot be written.
    """
    labels, shared = label_map(masks)
    if labels.dtype != np.uint8:
        write_png(path, labels)
        return shared
    picture = Image.fromarray(labels).convert("L")
    picture.putpalette(_palette())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    write_atomic(path, buffer.getvalue())
    return shared


def write_mask_pngs(folder: str | Path, stem: str, masks: Stack) -> list[Path]:
    """Write one PNG an object, 0 and 255: `stem`_mask_1.png, `stem`_mask_2.png and so on.

    Raises:
        DataError: a file cannot be written.
    """
    paths = [Path(folder) / f"{stem}_mask_{number}.png" for number in range(1, len(masks) + 1)]
    for path, mask in zip(paths, masks, strict=True):
        write_png(path, mask)
    return paths


def write_overlay(
    path: str | Path,
    image: NDArray[np.uint8],
    masks: Stack,
    *,
    points: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    boxes: ArrayLike | None = None,
    score: float | None = None,
    title: str | None = None,
) -> None:
    """Draw masks and prompts on an image and write it as PNG.

    Args:
        path: the file.
        image: uint8 (H, W, 3) RGB.
        masks: (N, H, W) bool.
        points: (P, 2) x, y of all objects.
        labels: (P,) 1 inside, 0 outside.
        boxes: (B, 4) x1, y1, x2, y2.
        score: written above the image, for one object.
        title: written above the image.

    Raises:
        DataError: shapes do not fit, or the file cannot be written.
    """
    from ultrasam.visualization.overlay import draw_overlay

    drawn = draw_overlay(image, prediction=masks, points=points, point_labels=labels, boxes=boxes, score=score,
                         title=title)  # fmt: skip
    write_png(path, drawn)


class Collected:
    """Answers brought together for one JSON and one table; only their encoded masks and measures are kept."""

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.rows: list[list[str]] = []
        self._categories: dict[str, int] = {}

    def add(self, answer: Answer) -> list[Measures]:
        """Take in one frame; return the measures of its masks."""
        height, width = answer.masks.shape[1:]
        self.images.append({"id": len(self.images) + 1, "file_name": answer.file_name, "height": height,
                            "width": width, "frame": answer.frame})  # fmt: skip
        found = answer.measures()
        for index, measures in enumerate(found):
            self.rows.append(_row(answer, index, measures))
            category = self._categories.setdefault(answer.name(index), len(self._categories) + 1)
            if measures.area_px == 0:
                continue
            x1, y1, x2, y2 = measures.box
            annotation = {
                "id": len(self.annotations) + 1,
                "image_id": len(self.images),
                "category_id": category,
                "iscrowd": 0,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": measures.area_px,
                "segmentation": encode_mask(answer.masks[index]),
                "score": float(answer.scores[index]),
                "object": index + 1,
                "measures": measures.to_dict(),
            }
            if answer.prompts:
                annotation["prompt"] = dict(answer.prompts[index])
            self.annotations.append(annotation)
        return found

    def document(self, info: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the COCO annotation document; see :func:`coco_document`."""
        named = [{"id": number, "name": name} for name, number in self._categories.items()]
        return {"info": dict(info or {}), "images": self.images, "annotations": self.annotations,
                "categories": named or [{"id": 1, "name": "object"}]}  # fmt: skip

    def write_coco(self, path: str | Path, info: Mapping[str, Any] | None = None) -> None:
        """Write the document as JSON, whole or not at all; DataError where the file cannot be written."""
        text = json.dumps(self.document(info), ensure_ascii=False, allow_nan=False)
        write_atomic(path, (text + "\n").encode("utf-8"))

    def write_measures(self, path: str | Path) -> None:
        """Write the table, CSV in UTF-8, whole or not at all; DataError where the file cannot be written."""
        buffer = io.StringIO(newline="")
        csv.writer(buffer).writerows([_COLUMNS, *self.rows])
        write_atomic(path, buffer.getvalue().encode("utf-8"))


def coco_document(answers: Iterable[Answer], info: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return predictions as a COCO annotation document.

    All ids begin at 1. Every frame with answers is an image, with its number as "frame"; every mask that has a pixel
    is an annotation: compressed RLE, area, box (x, y, width, height) and, beyond COCO, "score", "object" (its number
    in the frame), "measures" and "prompt". Objects with an empty mask have none, so that COCO's tools read the file.

    Args:
        answers: one a frame.
        info: what stands under "info".
    """
    return _collected(answers).document(info)


def write_coco(path: str | Path, answers: Iterable[Answer], info: Mapping[str, Any] | None = None) -> None:
    """Write :func:`coco_document` as JSON, whole or not at all.

    Raises:
        DataError: the file cannot be written.
    """
    _collected(answers).write_coco(path, info)


def write_measures(path: str | Path, answers: Iterable[Answer]) -> None:
    """Write a table (CSV, UTF-8) with one row an object: sizes in pixels and, where the spacing is known, mm.

    Raises:
        DataError: the file cannot be written.
    """
    _collected(answers).write_measures(path)


def _collected(answers: Iterable[Answer]) -> Collected:
    found = Collected()
    for answer in answers:
        found.add(answer)
    return found


def _row(answer: Answer, index: int, found: Measures) -> list[str]:
    """Return the cells of one object, in the order of the columns."""
    sizes = (found.area_px, found.area_mm2, found.long_px, found.long_mm, found.short_px, found.short_mm,
             found.perimeter_px, found.perimeter_mm, *(found.centroid or (None, None)))  # fmt: skip
    return [answer.file_name, str(answer.frame), str(index + 1), answer.name(index),
            f"{float(answer.scores[index]):.4f}", *map(_cell, sizes), *map(str, found.box)]  # fmt: skip


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}".rstrip("0").rstrip(".")


def _palette() -> list[int]:
    """Return 256 colours, RGB RGB ...: black, then objects."""
    values = [0, 0, 0]
    for number in range(255):
        turn, place = divmod(number, len(_COLOURS))
        values += [round(part * 0.82**(turn % 8)) for part in _COLOURS[place]]
    return values
