"""EchoNet-Dynamic: apical four-chamber videos with the left ventricle traced at end-diastole and end-systole.

Also reading of tracing tables, which EchoNet-Pediatric has too.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.frames import VideoFrame
from data_prep.mask_shapes import Polygons, Vertices
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from data_prep.sources import find_one
from data_prep.tables import read_csv
from ultrasam.errors import DataError

INFO = DatasetInfo(
    slug="echonet_dynamic",
    name="EchoNet-Dynamic",
    home="https://github.com/echonet/dynamic",
    licence="Stanford research use agreement: non-commercial, no redistribution, no derivative works",
    application="cardiac",
    organ="heart",
    categories=("left_ventricle",),
    group_key="video",
    official_split="TRAIN, VAL and TEST (Split of FileList.csv)",
    expected={"images": 20048, "masks": 20048, "groups": 10024},
    rules=MaskRules(split_components=False),
    table1=(20048, 20048),
    view="apical four-chamber",
    names=("*echonet-dynamic*", "*echonet_dynamic*", "*echonetdynamic*"),
    access="Register at Stanford AIMI and accept the research use agreement.",
)

Traces = dict[tuple[str, str], list[tuple[float, ...]]]


def records(root: Path) -> Iterator[Record]:
    """Yield one record per traced frame; frames are counted from 0."""
    table = find_one(root, "VolumeTracings.csv")
    files = read_csv(table.parent / "FileList.csv", ("FileName", "Split"), key="FileName")
    sides = {name.removesuffix(".avi"): row["Split"].lower() for name, row in files.items()}
    for (name, text), rows in read_traces(table, ("X1", "Y1", "X2", "Y2")).items():
        frame = frame_number(text, f"{table}: {name}")
        # The first line is the long axis, the others cross it from one wall to the other.
        crossing = rows[1:]
        vertices = [(x1, y1) for x1, y1, _, _ in crossing] + [(x2, y2) for _, _, x2, y2 in reversed(crossing)]
        yield Record(
            key=f"{name}_{frame:05d}",
            image=VideoFrame(table.parent / "Videos" / f"{name}.avi", frame),
            masks=(ventricle(table, vertices, f"{name} frame {text}"),),
            group=name,
            frame=frame,
            attributes={"official_split": sides[name]} if name in sides else {},
        )


def ventricle(table: Path, vertices: Sequence[tuple[float, float]], where: str) -> Polygons:
    """Return the traced left ventricle as a mask source."""
    shape: tuple[str, Vertices] = ("left_ventricle", tuple(vertices))
    return Polygons(table, (shape,), where)


def read_traces(path: Path, columns: Sequence[str], skipped: frozenset[str] = frozenset()) -> Traces:
    """Return the numbers of a tracing table's lines by video (without .avi) and Frame, in the order of the file.

    Args:
        path: CSV with FileName, Frame and the columns.
        columns: columns of numbers, in the order wanted.
        skipped: texts in place of a frame number that mean that there is no tracing.

    Raises:
        DataError: not a readable table, columns missing, or a cell that is not a number.
    """
    traces: Traces = defaultdict(list)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            absent = {"FileName", "Frame", *columns} - set(reader.fieldnames or ())
            if absent:
                raise DataError(f"{path}: the columns FileName, Frame, {', '.join(columns)} were expected, "
                                f"{sorted(absent)} not among {reader.fieldnames}")
            for row in reader:
                if row["Frame"] not in skipped:
                    numbers = _numbers([row[name] for name in columns], f"{path}: line {reader.line_num}")
                    traces[row["FileName"].removesuffix(".avi"), row["Frame"]].append(numbers)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: a readable CSV table was expected, found: {error}") from error
    return dict(traces)


def _numbers(cells: Sequence[str | None], where: str) -> tuple[float, ...]:
    """Return the cells as numbers; DataError names ``where``."""
    try:
        return tuple(float(cell or "") for cell in cells)
    except ValueError as error:
        raise DataError(f"{where}: numbers were expected, found {cells}; the table may be cut off") from error


def frame_number(text: str | None, where: str) -> int:
    """Return the whole number of a cell such as "46" or "46.0"; DataError names ``where``."""
    try:
        number = float(text or "")
    except ValueError:
        number = float("nan")
    if not number.is_integer():
        raise DataError(f"{where}: a frame number was expected, found {text!r}")
    return int(number)


CONVERTER = Converter(INFO, records)
