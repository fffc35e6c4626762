"""EchoNet-Dynamic: apical four-chamber videos with the left ventricle traced at end-diastole and end-systole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import VideoFrame
from data_prep.mask_shapes import Polygons
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from data_prep.sources import find_one
from data_prep.tables import read_csv, read_numbers, whole_number

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


def records(root: Path) -> Iterator[Record]:
    """Yield one record per traced frame; frames are counted from 0."""
    table = find_one(root, "VolumeTracings.csv")
    files = read_csv(table.parent / "FileList.csv", ("FileName", "Split"), key="FileName")
    sides = {name.removesuffix(".avi"): row["Split"].lower() for name, row in files.items()}
    for (file, text), rows in read_numbers(table, ("FileName", "Frame"), ("X1", "Y1", "X2", "Y2")).items():
        name = file.removesuffix(".avi")
        frame = whole_number(text, where=f"{table}: {name}: Frame")
        # The first line is the long axis, the others cross it from one wall to the other.
        crossing = rows[1:]
        vertices = [(x1, y1) for x1, y1, _, _ in crossing] + [(x2, y2) for _, _, x2, y2 in reversed(crossing)]
        yield Record(
            key=f"{name}_{frame:05d}",
            image=VideoFrame(table.parent / "Videos" / f"{name}.avi", frame),
            masks=(Polygons(table, (("left_ventricle", tuple(vertices)),), f"{name} frame {text}"),),
            group=name,
            frame=frame,
            attributes={"official_split": sides[name]} if name in sides else {},
        )


CONVERTER = Converter(INFO, records)
