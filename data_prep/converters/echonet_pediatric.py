"""EchoNet-Pediatric: four-chamber and short-axis videos of children with the left ventricle traced in two frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import VideoFrame
from data_prep.listing import find_files
from data_prep.mask_shapes import Polygons
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from data_prep.tables import read_csv, read_numbers, whole_number
from ultrasam.errors import DataError
from ultrasam.io.video import frame_count

INFO = DatasetInfo(
    slug="echonet_pediatric",
    name="EchoNet-Pediatric",
    home="https://echonet.github.io/pediatric",
    licence="Stanford research use agreement: non-commercial, no redistribution, no derivative works",
    application="cardiac",
    organ="heart",
    categories=("left_ventricle",),
    group_key="patient (first part of the video's name, the same in both views)",
    official_split="ten folds (Split of FileList.csv)",
    rules=MaskRules(split_components=False),
    table1=(15449, 15449),
    view="apical four-chamber, parasternal short axis",
    names=("*echonet-pediatric*", "*echonet_pediatric*", "*echonetpediatric*", "*pediatric_echo*"),
    access="Register at Stanford AIMI and accept the research use agreement.",
    unsure="whether frames are counted from 0 or 1, and that a name starts with the patient, is not documented",
)

_VIEWS = {"A4C": "apical four-chamber", "PSAX": "parasternal short axis"}
_NO_TRACING = frozenset({"No Systolic", "No Diastolic"})

# Points by video (without .avi) and number of the frame as the table counts.
Traces = dict[tuple[str, int], list[tuple[float, ...]]]


def records(root: Path) -> Iterator[Record]:
    """Yield one record per traced frame of both views; lines that say that a phase was not traced are left out."""
    tables = [path for path in find_files(root, "VolumeTracings.csv") if path.parent.name in _VIEWS]
    if not tables:
        raise DataError(f"{root}: VolumeTracings.csv in folders called A4C and PSAX was expected, found none")
    traces = {table: _traces(table) for table in tables}
    base, stated = _frame_base(traces)
    for table in tables:
        files = read_csv(table.parent / "FileList.csv", ("FileName", "Split"), key="FileName")
        folds = {name.removesuffix(".avi"): row["Split"] for name, row in files.items()}
        view = table.parent.name
        for (name, number), points in traces[table].items():
            frame = number - base
            vertices = tuple((x, y) for x, y in points)
            yield Record(
                key=f"{view}_{name}_{frame:05d}",
                image=VideoFrame(_video(table, name), frame),
                masks=(Polygons(table, (("left_ventricle", vertices),), f"{name} frame {number}"),),
                group=name.split("-")[0],
                frame=frame,
                attributes={
                    "view": _VIEWS[view],
                    "frame_base": base if stated else f"{base} (assumed)",
                    **({"official_split": f"fold {folds[name]}"} if name in folds else {}),
                },
            )


def _traces(table: Path) -> Traces:
    """Return the tracings of a table."""
    rows = read_numbers(table, ("FileName", "Frame"), ("X", "Y"), without=_NO_TRACING)
    return {(name.removesuffix(".avi"), whole_number(text, where=f"{table}: {name}: Frame")): points
            for (name, text), points in rows.items()}


def _video(table: Path, name: str) -> Path:
    """Return where the video of a table's entry lies."""
    return table.parent / "Videos" / f"{name}.avi"


def _frame_base(traces: dict[Path, Traces]) -> tuple[int, bool]:
    """Return the number of a video's first frame in the tables, and whether the data show it.

    Frame 0 exists only where counting starts at 0, and a frame numbered as the video's length only where it
    starts at 1. Without either, 0 is assumed, as in EchoNet-Dynamic.
    """
    last: dict[Path, int] = {}
    for table, found in traces.items():
        for name, frame in found:
            if frame == 0:
                return 0, True
            path = _video(table, name)
            last[path] = max(frame, last.get(path, 0))
    if any(frame == _length(path) for path, frame in last.items()):
        return 1, True
    return 0, False


def _length(path: Path) -> int:
    """Return the number of frames of a video; 0 for one that cannot be read, which its conversion reports."""
    try:
        return frame_count(path)
    except DataError:
        return 0


CONVERTER = Converter(INFO, records)
