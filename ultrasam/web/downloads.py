"""Result files of an opened file, in memory."""

from __future__ import annotations

import csv
import importlib.util
import io
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ultrasam.errors import UltraSamError
from ultrasam.geometry.rle import decode_mask
from ultrasam.io import outputs
from ultrasam.io.outputs_dicom import Segment, write_dicom_seg
from ultrasam.io.outputs_volume import volume_suffix, write_label_volume
from ultrasam.web.limits import WebError

if TYPE_CHECKING:
    from ultrasam.io.scan import Scan
    from ultrasam.web.study import Item, Study

_NOTE = """Masks made with UltraSam. Not for diagnosis.

*_labels.png     0 outside, n where object n is; of overlapping objects the smallest is on top
*_overlay.png    to look at
*_coco.json      whole masks (compressed RLE), classes, scores, prompts and measures
*_measures.csv   area, diameters, perimeter, in pixels and, where the file states its scale, mm
*_labels.nii.gz, .mha, .nrrd   label values on the grid of the file, all frames
*_seg.dcm        DICOM Segmentation that refers to the file; its segments are numbered without gaps

Frames are counted from 0 in names, JSON and CSV, from 1 on the page.
"""


@dataclass(frozen=True)
class Made:
    """A file to save."""

    name: str
    data: bytes
    media_type: str


@dataclass(frozen=True)
class Work:
    """What is marked in a file, taken at one moment, so that writing does not stop the reader's clicks.

    Attributes:
        scan: the file.
        items: its objects.
        model: name of the weights.
        read: returns a frame.
    """

    scan: Scan
    items: list[Item]
    model: str
    read: Callable[[int], NDArray[np.uint8]]

    @property
    def frames(self) -> list[int]:
        """Frames on which something is marked."""
        return sorted({frame for item in self.items for frame in item.marks})

    def masks(self, frame: int, items: list[Item] | None = None) -> NDArray[np.bool_]:
        """Return (N, H, W): object n at place n - 1, empty where there is none, so that labels are its number."""
        chosen = self.items if items is None else items
        places = {item.number - 1 if items is None else place: item for place, item in enumerate(chosen)}
        stack = np.zeros((max(places, default=-1) + 1, *self.scan.size), bool)
        for place, item in places.items():
            if frame in item.marks:
                stack[place] = decode_mask(item.marks[frame].rle)
        return stack

    def answer(self, frame: int) -> outputs.Answer:
        """Return the objects that are marked on a frame, for COCO and the table, with gaps as in `masks`."""
        masks = self.masks(frame)
        scores, names = np.zeros(len(masks)), ["object"] * len(masks)
        prompts: list[dict[str, Any]] = [{} for _ in masks]
        for item in self.items:
            place, mark = item.number - 1, item.marks.get(frame)
            names[place] = item.category or "object"
            if mark is not None:
                scores[place] = mark.score
                prompts[place] = {
                    "points": [list(point[:2]) for point in mark.points],
                    "labels": [point[2] for point in mark.points],
                    "box": None if mark.box is None else list(mark.box),
                    "name": item.name,
                }
        return outputs.Answer(self.scan.name, masks, scores, frame, self.scan.spacing, names, prompts)

    def name(self, suffix: str, frame: int | None = None) -> str:
        """Return the name of a result file; of one frame of several with its number."""
        part = f"_frame{frame:04d}" if frame is not None and self.scan.frames > 1 else ""
        return f"{self.scan.stem}{part}_{suffix}"


def offers(scan: Scan) -> list[dict[str, str]]:
    """Return the kinds of files that there are for a scan, with words for the reader."""
    several = scan.frames > 1
    here = "This frame: " if several else ""
    found = [
        ("zip", "Everything (zip)", "All files below" + (", for all marked frames" if several else "")),
        ("labels", "Label image (PNG)", f"{here}0 outside, n in object n; of overlapping ones the smallest"),
        ("overlay", "Overlay (PNG)", f"{here}image with outlines, clicks and boxes, to look at"),
        ("coco", "COCO (JSON)", "Masks, classes, scores, prompts and measures" + (" of all frames" if several else "")),
        ("measures", "Measures (CSV)", "A table of area and diameters"),
    ]
    if several or scan.kind == "volume":
        found.append(("volume", f"Label volume ({volume_suffix(scan)[1:]})", "All frames, on the grid of the file"))
    if scan.kind == "dicom" and importlib.util.find_spec("highdicom") is not None:
        found.append(("seg", "DICOM SEG", "Segmentation that refers to the opened DICOM file"))
    return [{"kind": kind, "label": label, "note": note} for kind, label, note in found]


def make(study: Study, kind: str, frame: int, model: str = "UltraSam") -> Made:
    """Return a result file.

    Args:
        study: the file.
        kind: one of those that `offers` names.
        frame: the frame that is looked at, for files of one frame.
        model: name of the weights.

    Raises:
        WebError: an unknown kind, or nothing is marked.
        DataError: what is marked cannot be written so.
    """
    if kind not in {offer["kind"] for offer in offers(study.scan)}:
        raise WebError(404, f"There is no file of the kind {kind!r} for {study.scan.name}.")
    work = Work(study.scan, study.items, model, study.read)
    if not work.frames:
        raise WebError(409, "Nothing is marked yet; click inside an object first.")
    if kind in ("labels", "overlay") and frame not in work.frames:
        raise WebError(409, "Nothing is marked on this frame; go to one with a dot below the slider.")
    if kind == "zip":
        return Made(work.name("ultrasam.zip"), _archive(work), "application/zip")
    name, media_type, write = _writers(work, frame)[kind]
    return Made(name, _written(name, write), media_type)


def _writers(work: Work, frame: int) -> dict[str, tuple[str, str, Callable[[Path], object]]]:
    """Return for each kind the file's name, media type and what writes it to a path."""
    scan = work.scan
    info = {"description": "Masks made with UltraSam. Not for diagnosis.", "model": work.model}
    suffix = volume_suffix(scan)
    return {
        "labels": (
            work.name("labels.png", frame),
            "image/png",
            lambda path: outputs.write_label_png(path, work.masks(frame)),
        ),
        "overlay": (work.name("overlay.png", frame), "image/png", lambda path: _write_overlay(path, work, frame)),
        "coco": (
            work.name("coco.json"),
            "application/json",
            lambda path: outputs.write_coco(path, map(work.answer, work.frames), info),
        ),
        "measures": (work.name("measures.csv"), "text/csv", lambda path: _write_measures(path, work)),
        "volume": (
            work.name(f"labels{suffix}"),
            "application/octet-stream",
            lambda path: write_label_volume(path, {n: work.masks(n) for n in work.frames}, scan),
        ),
        "seg": (work.name("seg.dcm"), "application/dicom", lambda path: _write_seg(path, work)),
    }


def _written(name: str, write: Callable[[Path], object]) -> bytes:
    """Return what a function writes to a file, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ultrasam_") as folder:
        path = Path(folder) / name
        write(path)
        return path.read_bytes()


def _write_overlay(path: Path, work: Work, frame: int) -> None:
    marks = [item.marks[frame] for item in work.items if frame in item.marks]
    points = [point for mark in marks for point in mark.points]
    boxes = [mark.box for mark in marks if mark.box is not None]
    outputs.write_overlay(
        path,
        work.read(frame),
        work.masks(frame),
        points=[point[:2] for point in points] or None,
        labels=[point[2] for point in points] or None,
        boxes=boxes or None,
    )


def _write_measures(path: Path, work: Work) -> None:
    """Write the table without rows for numbers that no object has on a frame."""
    outputs.write_measures(path, map(work.answer, work.frames))
    marked = {(str(frame), str(item.number)) for item in work.items for frame in item.marks}
    with path.open(encoding="utf-8", newline="") as stream:
        table = csv.DictReader(stream)
        kept = [row for row in table if (row["frame"], row["object"]) in marked]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, table.fieldnames or [])
        writer.writeheader()
        writer.writerows(kept)


def _write_seg(path: Path, work: Work) -> None:
    items = [item for item in work.items if item.marks]
    segments = [Segment(f"{item.name}, {item.category}" if item.category else item.name) for item in items]
    masks = {frame: work.masks(frame, items) for frame in work.frames}
    write_dicom_seg(path, masks, work.scan, segments, algorithm=work.model)


def _archive(work: Work) -> bytes:
    """Return everything as zip; what cannot be written is said in its note."""
    note, stream = _NOTE, io.BytesIO()
    kinds = [offer["kind"] for offer in offers(work.scan)]
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for kind in kinds:
            for frame in work.frames if kind in ("labels", "overlay") else work.frames[:1] * (kind != "zip"):
                name, _, write = _writers(work, frame)[kind]
                try:
                    archive.writestr(name, _written(name, write))
                except UltraSamError as error:
                    note += f"\n{name} is left out: {error}\n"
        archive.writestr("README.txt", note + f"\nModel: {work.model}\n")
    return stream.getvalue()
