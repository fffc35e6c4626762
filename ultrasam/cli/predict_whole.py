"""``ultrasam predict`` with a model without prompts: a classifier, a regressor, a Mask2Former."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultrasam.cli.errors import about_file, complain
from ultrasam.cli.predict import about, counted, names_of
from ultrasam.cli.predict_options import DETECTION_SCORE, Asked, parse_promptless
from ultrasam.cli.predict_results import PREDICTIONS, Frame, Results, class_cells, class_columns, write_table
from ultrasam.errors import ConfigError, DataError, UltraSamError
from ultrasam.io.files import write_atomic

if TYPE_CHECKING:
    from ultrasam.downstream.checkpoint import TaskCheckpoint
    from ultrasam.downstream.whole_image import ClassAnswer, ValueAnswer, WholeImage
    from ultrasam.io.scan_base import Scan

_TABLES = {"classify": "classes", "regress": "values"}


def run(options: argparse.Namespace, checkpoint: TaskCheckpoint) -> int:
    """Predict all scans; return 0, or 2 where anything could not be done."""
    from ultrasam.downstream.checkpoint import NAMES, rebuild
    from ultrasam.downstream.whole_image import WholeImage
    from ultrasam.io.scan import listed_scans

    detecting = checkpoint.task == "detect"
    words = f"{checkpoint.path} is {NAMES[checkpoint.task]}"
    asked = parse_promptless(options, words, detecting)
    listed = listed_scans(options.scans)
    stems = names_of(listed)
    single = stems[listed[0][0]] if len(listed) == 1 else None
    results = Results(Path(options.out), asked.formats, options.overwrite, single)
    answers = None if detecting else Answers(results, _TABLES[checkpoint.task])
    if answers is None:
        results.require_free_tables()
    else:
        results.require_free(list(answers.paths().values()))
    model = WholeImage(rebuild(checkpoint, options.config, options.device))
    results.info = about(model.rebuilt.name)
    failures, done = 0, 0
    for path, relative in listed:
        try:
            if answers is None:
                score = DETECTION_SCORE if options.min_score == -math.inf else options.min_score
                _detect(model, path, relative, stems[path], asked, results, score)
            else:
                _answer(model, path, relative, asked, answers)
            done += 1
        except UltraSamError as error:
            complain(about_file(path, error))
            failures += 1
    if answers is None:
        results.finish()
    else:
        answers.finish()
    missed = f"{counted(failures, 'error')}, see above"
    if not results.written:
        complain(f"nothing was written of {counted(len(listed), 'scan')}; {missed}")
        return 2
    what = counted(results.masks, "mask") if answers is None else counted(len(answers.records), answers.noun)
    of = "" if len(listed) == 1 else f" of {done} of {len(listed)} scans"
    print(f"wrote {what}{of} to {results.folder} ({counted(len(results.written), 'file')})"
          f"{f'; {missed}' if failures else ''}")  # fmt: skip
    return 2 if failures else 0


def _frames(scan: Scan, asked: Asked) -> list[int]:
    """Return the numbers of the frames that are asked for.

    Raises:
        DataError: the scan has no such frame.
    """
    chosen = [asked.frame or 0] if asked.frames is None else list(range(*asked.frames))
    outside = [frame for frame in chosen if frame >= scan.frames]
    if outside:
        raise DataError(f"{scan.path or scan.name} has the frames 0 to {scan.frames - 1}, found frame {outside[0]}")
    return chosen


def _detect(
    model: WholeImage, path: Path, relative: str, stem: str, asked: Asked, results: Results, min_score: float
) -> None:
    """Find the objects of one scan and write them."""
    from ultrasam.io.prompts_file import Wanted
    from ultrasam.io.scan import open_scan

    with open_scan(path) as scan:
        scan.spacing = scan.spacing or asked.spacing
        frames = _frames(scan, asked)
        whole = sorted({"volume", "seg"} & set(results.formats))
        if whole and len(frames) > 1:
            raise ConfigError(
                f"{path}: {whole[0]} gives an object one number through all frames, which a model that finds objects "
                "frame by frame does not know; take one --frame, or leave it out"
            )
        results.require_free_scan(stem, scan, frames)
        for number in frames:
            image = scan.read(number)
            found = model.detect(image, str(path), min_score)
            wanted = [Wanted(name=name) for name in found.names]
            print(results.write_frame(stem, scan, relative, Frame(number, image, found.masks, found.scores, wanted)))
            if not found.names:
                print(f"{relative}: no object has a score of {min_score:g} or more; --min-score gives another limit")
            if whole:
                results.write_scan(stem, scan, {number: found.masks}, found.names)


def _answer(model: WholeImage, path: Path, relative: str, asked: Asked, answers: Answers) -> None:
    """Classify or measure one scan; all of its frames or none are kept."""
    from ultrasam.io.scan import open_scan

    found: list[tuple[int, Any]] = []
    with open_scan(path) as scan:
        spacing = scan.spacing or asked.spacing
        ask: Callable[[Any], Any]
        if answers.table == "classes":
            ask = lambda image: model.classify(image, str(path))  # noqa: E731
        else:
            ask = lambda image: model.measure(image, str(path), spacing)  # noqa: E731
        for number in _frames(scan, asked):
            found.append((number, ask(scan.read(number))))
        for number, answer in found:
            print(answers.add(relative, scan, number, answer))


@dataclass
class Answers:
    """Classes or values of whole frames, for one JSON and one table.

    Attributes:
        results: where they go and what was written.
        table: "classes" or "values".
        records: one a frame, for the JSON.
        rows: of the table, its head included.
    """

    results: Results
    table: str
    records: list[dict[str, Any]] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)

    @property
    def noun(self) -> str:
        """What one of the records is."""
        return "value" if self.table == "values" else "classification"

    def paths(self) -> Mapping[str, Path]:
        """Return the files that are written at the end."""
        single = self.results.single
        names = {"coco": f"{single}.json" if single else PREDICTIONS,
                 "csv": f"{single}_{self.table}.csv" if single else f"{self.table}.csv"}  # fmt: skip
        return {kind: self.results.folder / name for kind, name in names.items() if kind in self.results.formats}

    def add(self, file_name: str, scan: Scan, frame: int, answer: ClassAnswer | ValueAnswer) -> str:
        """Keep an answer; return one line that says it."""
        from ultrasam.downstream.whole_image import ClassAnswer

        height, width = scan.size
        self.records.append({"id": len(self.records) + 1, "file_name": file_name, "height": height, "width": width,
                             "frame": frame, **answer.to_dict()})  # fmt: skip
        where = f"{file_name} frame {frame}" if scan.frames > 1 else file_name
        if isinstance(answer, ClassAnswer):
            self._row(file_name, frame, class_columns(answer), class_cells(answer))
            return f"{where}: {answer.name}, probability {answer.probability:.2f}"
        deviation = "" if answer.deviation is None else f"{answer.deviation:.6g}"
        self._row(file_name, frame, ("value", "unit", "deviation"), (f"{answer.value:.6g}", answer.unit, deviation))
        about_it = f", standard deviation {deviation}" if deviation else ""
        return f"{where}: {answer.value:.4g}{f' {answer.unit}' if answer.unit else ''}{about_it}"

    def _row(self, file_name: str, frame: int, head: Sequence[str], cells: Sequence[str]) -> None:
        if not self.rows:
            self.rows.append(["file", "frame", *head])
        self.rows.append([file_name, str(frame), *cells])

    def finish(self) -> None:
        """Write JSON and table, where anything was answered."""
        if not self.records:
            return
        info = {**self.results.info, "description": f"{self.table} predicted by UltraSam, not for diagnosis"}
        info.pop("coordinates", None)
        for kind, path in self.paths().items():
            if kind == "coco":
                text = json.dumps({"info": info, "images": self.records}, ensure_ascii=False, allow_nan=False)
                write_atomic(path, (text + "\n").encode("utf-8"))
            else:
                write_table(path, self.rows)
            self.results.written.append(path)
