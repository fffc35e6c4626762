"""The files that ``ultrasam predict`` writes, their names, and that none is overwritten unasked."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ultrasam.errors import ConfigError, DataError
from ultrasam.io.files import write_atomic
from ultrasam.io.outputs import Answer, Collected, write_label_png, write_mask_pngs, write_overlay
from ultrasam.io.prompts_file import Wanted
from ultrasam.io.scan_base import Scan

if TYPE_CHECKING:
    from ultrasam.downstream.whole_image import ClassAnswer
    from ultrasam.inference.prompt import Prompt

PREDICTIONS, MEASURES, CLASSES = "predictions.json", "measures.csv", "classes.csv"


@dataclass(frozen=True)
class Frame:
    """The masks of one frame with what was asked.

    Attributes:
        number: of the frame.
        image: uint8 (H, W, 3) RGB.
        masks: (N, H, W) bool.
        scores: (N,) predicted IoU.
        objects: what was asked for each; without points and boxes in frames that an object was followed into.
        classes: of the objects, where the model tells them.
    """

    number: int
    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    scores: NDArray[np.floating[Any]]
    objects: Sequence[Wanted]
    classes: Sequence[ClassAnswer] = ()


@dataclass
class Results:
    """Writes results of one run.

    Attributes:
        folder: where they go.
        formats: png, coco, csv, volume, seg.
        overwrite: whether files that exist are replaced.
        single: name of the JSON and the table of a run of one scan, without suffix; None for several.
        info: what the JSON says of the run.
        written: files so far.
        collected: what goes into the JSON and the table at the end.
        masks: number of masks so far that have a pixel.
        classified: whether objects get classes, which are then their names and stand in a table of their own.
        class_rows: that table so far, its head included.
    """

    folder: Path
    formats: Collection[str]
    overwrite: bool = False
    single: str | None = None
    info: dict[str, Any] = field(default_factory=dict)
    written: list[Path] = field(default_factory=list)
    collected: Collected = field(default_factory=Collected)
    masks: int = 0
    classified: bool = False
    class_rows: list[list[str]] = field(default_factory=list)

    def require_free_tables(self) -> None:
        """Raise ConfigError where JSON or table exist and may not be overwritten."""
        self.require_free(list(self._tables().values()))

    def _tables(self) -> dict[str, Path]:
        names = {"coco": f"{self.single}.json" if self.single else PREDICTIONS,
                 "csv": f"{self.single}_measures.csv" if self.single else MEASURES}  # fmt: skip
        paths = {kind: self.folder / name for kind, name in names.items() if kind in self.formats}
        if self.classified and "csv" in self.formats:
            paths["classes"] = self.folder / (f"{self.single}_classes.csv" if self.single else CLASSES)
        return paths

    def require_free(self, paths: Sequence[Path]) -> None:
        """Raise ConfigError where one of the files exists and may not be overwritten."""
        taken = [path for path in paths if path.exists()]
        if taken and not self.overwrite:
            more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
            raise ConfigError(f"{taken[0]}{more} exists; give --overwrite to replace it, or another folder with --out")

    def require_source(self, scan: Scan) -> None:
        """Raise DataError where a DICOM SEG is asked for and the scan is no DICOM file."""
        if "seg" in self.formats and scan.kind != "dicom":
            raise DataError(f"{scan.path or scan.name} is no DICOM file, which a DICOM SEG refers to; leave seg out of "
                            "--format")  # fmt: skip

    def require_free_scan(self, stem: str, scan: Scan, frames: Sequence[int]) -> None:
        """Raise ConfigError where a file of a scan exists and may not be overwritten; DataError for SEG of no DICOM."""
        self.require_source(scan)
        paths = [path for frame in frames for path in self._pictures(stem, scan, frame)[:2]] if "png" in self.formats \
            else []  # fmt: skip
        self.require_free([*paths, *self._volumes(stem, scan).values()])

    def _pictures(self, stem: str, scan: Scan, frame: int) -> tuple[Path, Path, str]:
        """Return the label map, the overlay and the stem of the masks of single objects."""
        if scan.frames > 1:
            stem = f"{stem}_{frame:0{max(4, len(str(scan.frames - 1)))}d}"
        return self.folder / f"{stem}_labels.png", self.folder / f"{stem}_overlay.png", stem

    def _volumes(self, stem: str, scan: Scan) -> dict[str, Path]:
        from ultrasam.io.outputs_volume import volume_suffix

        paths = {"volume": self.folder / f"{stem}_labels{volume_suffix(scan)}", "seg": self.folder / f"{stem}_seg.dcm"}
        return {kind: path for kind, path in paths.items() if kind in self.formats}

    def write_frame(self, stem: str, scan: Scan, file_name: str, frame: Frame) -> str:
        """Write the pictures of a frame and keep its masks for the tables; return one line that says what was found."""
        prompts = [wanted.to_dict() for wanted in frame.objects]
        # Detections were not prompted.
        prompts = prompts if any(prompts) else []
        names = [found.name for found in frame.classes] or [wanted.name for wanted in frame.objects]
        answer = Answer(file_name, frame.masks, frame.scores, frame.number, scan.spacing, names, prompts)
        shared = int(frame.masks.sum() - frame.masks.any(axis=0).sum()) if len(frame.masks) else 0
        if "png" in self.formats:
            self._write_pictures(stem, scan, frame)
        before = len(self.collected.annotations)
        measures = self.collected.add(answer)
        self._add_classes(file_name, frame, before)
        self.masks += sum(found.area_px > 0 for found in measures)
        parts = []
        for number, (found, score) in enumerate(zip(measures, frame.scores, strict=True), 1):
            area = "" if found.area_mm2 is None else f" = {found.area_mm2:.1f} mm2"
            size = f"{found.area_px} pixels{area}" if found.area_px else "no pixel"
            sure = f", probability {frame.classes[number - 1].probability:.2f}" if frame.classes else ""
            parts.append(f"{names[number - 1]} {number}: {size}, score {float(score):.2f}{sure}")
        where = f"{file_name} frame {frame.number}" if scan.frames > 1 else file_name
        overlap = f"; {shared} pixels are of several objects, the smallest is on top in label maps" if shared else ""
        return f"{where}: {'; '.join(parts) or 'no object asked for'}{overlap}"

    def _add_classes(self, file_name: str, frame: Frame, before: int) -> None:
        """Add the classes of a frame to its annotations, from number ``before`` on, and to their table."""
        if not frame.classes:
            return
        for annotation in self.collected.annotations[before:]:
            annotation.update(frame.classes[annotation["object"] - 1].to_dict())
        if not self.class_rows:
            self.class_rows.append(["file", "frame", "object", *class_columns(frame.classes[0])])
        for number, found in enumerate(frame.classes, 1):
            self.class_rows.append([file_name, str(frame.number), str(number), *class_cells(found)])

    def _write_pictures(self, stem: str, scan: Scan, frame: Frame) -> None:
        labels, overlay, name = self._pictures(stem, scan, frame.number)
        masks = self.folder / name
        # Of a run before with more objects.
        pattern = re.compile(re.escape(f"{masks.name}_mask_") + r"\d+\.png")
        stale = [path for path in masks.parent.iterdir() if pattern.fullmatch(path.name)] if masks.parent.is_dir() \
            else []  # fmt: skip
        self.require_free(stale)
        write_label_png(labels, frame.masks)
        files = write_mask_pngs(masks.parent, masks.name, frame.masks)
        points = [point for wanted in frame.objects for point in wanted.points]
        signs = [label for wanted in frame.objects for label in wanted.labels]
        boxes = [wanted.box for wanted in frame.objects if wanted.box is not None]
        score = float(frame.scores[0]) if len(frame.scores) == 1 else None
        write_overlay(overlay, frame.image, frame.masks, points=points or None, labels=signs or None,
                      boxes=boxes or None, score=score, title=Path(scan.name).name)  # fmt: skip
        self.written += [labels, overlay, *files]
        for path in set(stale) - set(files):
            path.unlink()

    def write_scan(self, stem: str, scan: Scan, masks: Mapping[int, NDArray[np.bool_]], names: Sequence[str]) -> None:
        """Write what holds all frames of a scan: label volume and DICOM SEG."""
        for kind, path in self._volumes(stem, scan).items():
            if kind == "volume":
                from ultrasam.io.outputs_volume import write_label_volume

                write_label_volume(path, masks, scan)
                self.written.append(path)
            else:
                self.write_seg(stem, scan, masks, names)

    def write_seg(self, stem: str, scan: Scan, masks: Mapping[int, NDArray[np.bool_]], names: Sequence[str]) -> None:
        """Write a DICOM SEG with one segment an object."""
        from ultrasam.io.outputs_dicom import Segment, write_dicom_seg

        path = self._volumes(stem, scan)["seg"]
        segments = [Segment(f"{name} {number}") for number, name in enumerate(names, 1)]
        write_dicom_seg(path, masks, scan, segments, algorithm=str(self.info.get("model", "UltraSam")))
        self.written.append(path)

    def finish(self) -> None:
        """Write JSON and table, where any scan could be predicted."""
        if not self.collected.images:  # nothing could be predicted, or objects were followed
            return
        for kind, path in self._tables().items():
            if kind == "coco":
                self.collected.write_coco(path, self.info)
            elif kind == "classes":
                write_table(path, self.class_rows)
            else:
                self.collected.write_measures(path)
            self.written.append(path)


def class_columns(found: ClassAnswer) -> list[str]:
    """Return the head of a table for ``class_cells``."""
    return ["class", "probability", *(f"probability of {name}" for name in found.classes)]


def class_cells(found: ClassAnswer) -> list[str]:
    """Return class and probabilities for a table."""
    return [found.name, f"{found.probability:.6f}", *(f"{float(value):.6f}" for value in found.probabilities)]


def write_table(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write a table, CSV in UTF-8, whole or not at all; DataError where the file cannot be written."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(rows)
    write_atomic(path, buffer.getvalue().encode("utf-8"))


def prompts_of(objects: Sequence[Wanted]) -> list[Prompt]:
    """Return what the network is asked, one prompt an object.

    Raises:
        PromptError: a value that is no number.
    """
    from ultrasam.inference.prompt import Prompt

    return [Prompt.of(item.points or None, item.labels or None, item.box) for item in objects]


def stems_of(scans: Sequence[tuple[str, str]]) -> list[str]:
    """Return names of results, without suffix, that are different for every scan.

    Args:
        scans: path as seen from the folder that was given, with "/", and the scan's name without suffix.
    """
    def joined(relative: str, name: str) -> str:
        folder, slash, _ = relative.rpartition("/")
        return f"{folder}{slash}{name}"

    plain = [joined(relative, stem) for relative, stem in scans]
    folded = [stem.casefold() for stem in plain]
    whole = [joined(relative, relative.rpartition("/")[2].replace(".", "_")) for relative, _ in scans]
    return [long if folded.count(key) > 1 else short for short, key, long in zip(plain, folded, whole, strict=True)]
