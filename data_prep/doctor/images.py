"""The image records: ids, files, sizes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from data_prep.doctor.document import Record
from data_prep.doctor.locate import Finder, is_absolute
from data_prep.doctor.pictures import REPAIRS, TURNED, Picture, probe
from data_prep.doctor.report import Report, shown
from data_prep.doctor.values import Size, key_of, same_shape, size_of
from data_prep.pipeline import usable_cores
from ultrasam.datasets.coco_ids import IdValue, dense_ids

MISSING = "image file missing"
WRONG_SIZE = "width and height not those of the file"
ASIDE = "set aside, with their annotations"


@dataclass
class Entry:
    """An image record on its way to the repaired copy.

    Attributes:
        record: as found.
        where: id or file, for messages.
        key: value under which annotations look it up; None where it has no id.
        name: file name as found; empty where there is none.
        recorded: (height, width) of the record; None where they cannot be.
        path: the file.
        picture: what the file is; None where it was not found.
        size: (height, width) of the repaired image; None where no size is known.
        scale: (x, y) that coordinates are multiplied by.
        as_stored: the annotations fit the pixels without their EXIF orientation.
        aside: why the image is left out; empty where it is kept.
        owner: the entry of the same file that this one is merged into; itself where there is none.
        new_id: id in the repaired copy.
        new_name: file name in the repaired copy.
        lost: number of its annotations that are left out.
    """

    record: Record
    where: str
    key: IdValue | None
    name: str
    recorded: Size | None
    path: Path | None = None
    picture: Picture | None = None
    size: Size | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    as_stored: bool = False
    aside: str = ""
    owner: Entry | None = None
    new_id: int = 0
    new_name: str = ""
    lost: int = 0

    @property
    def target(self) -> Entry:
        """The entry that holds the annotations in the repaired copy."""
        return self.owner or self

    @property
    def kept(self) -> bool:
        """Whether the image is part of the repaired copy."""
        return not self.aside and self.owner is None


def examine_images(records: Sequence[Record], root: Path, report: Report) -> list[Entry]:
    """Return one entry per image record, with its file found and read."""
    entries = [_entry(record) for record in records]
    finder = Finder(root)
    for entry in entries:
        _find(entry, finder, report)
    paths = list(dict.fromkeys(entry.path for entry in entries if entry.path is not None))
    pictures = dict(zip(paths, probe_all(paths), strict=True))
    first_of: dict[Path, Entry] = {}
    for entry in entries:
        if entry.path is None:
            continue
        entry.picture = pictures[entry.path]
        first = first_of.setdefault(entry.path.resolve(), entry)
        if first is not entry:
            entry.owner = first
            entry.aside = first.aside
            report.changed("same image listed twice", f"{entry.where}: {shown(entry.name)}",
                           "merged with the first record")
        else:
            _judge_file(entry, report)
    return entries


def probe_all(paths: Sequence[Path]) -> list[Picture]:
    """Return what every file is; decoding releases Python's lock, so threads share the work."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        found = pool.map(probe, paths)
        return list(tqdm(found, total=len(paths), desc="images", unit="image", disable=None, leave=False))


def number_images(entries: Sequence[Entry], report: Report) -> None:
    """Give every kept image its id: the old ones if they are unique whole numbers, else 1, 2, ..."""
    kept = [entry for entry in entries if entry.kept]
    ids, renumbered = dense_ids([entry.key for entry in kept], lowest=0)
    for entry, number in zip(kept, ids, strict=True):
        entry.new_id = number
    what = "repaired: all images numbered from 1" if renumbered else "made whole numbers"
    seen: set[IdValue] = set()
    for entry in entries:
        raw = entry.record.get("id")
        where = f"{shown(raw)}: {shown(entry.name)}"
        if entry.key is None:
            report.changed("image without a usable id", where, what)
        elif type(raw) is not int:
            report.changed("image id is not a whole number", where, what)
        elif not 0 <= raw < 2**63:
            report.changed("image id negative or of more than 63 bits", where, what)
        if entry.key is not None and entry.owner is None:
            if entry.key in seen:
                report.changed("image id used twice", where, what)
            seen.add(entry.key)


def settle_size(entry: Entry, annotations: Sequence[Record], report: Report, *, rescale: bool) -> None:
    """Decide which pixels the annotations of an image refer to, and set its size.

    The size of the record decides where it is that of the file, upright or as stored. Any other is replaced by
    that of the file. Coordinates are then scaled if they prove to be those of an image of the recorded size, which
    is so when one lies beyond the file but none beyond the record, and both have the same shape.
    """
    picture, recorded = entry.picture, entry.recorded
    if picture is None or picture.broken:
        entry.size = recorded
        return
    entry.size = picture.upright
    if recorded is None:
        report.changed("width or height missing or impossible", entry.where, "set to those of the file")
    elif recorded == picture.upright:
        pass
    elif recorded == picture.stored:
        entry.as_stored, entry.size = True, recorded
        report.changed("width and height of the image before its EXIF turn", entry.where,
                       "written as annotated, without the EXIF tag")
    elif same_shape(recorded, picture.upright) and (
            rescale or _reach_says_scaled(annotations, recorded, picture.upright)):
        entry.scale = (picture.upright[1] / recorded[1], picture.upright[0] / recorded[0])
        report.changed(WRONG_SIZE, _sizes(entry), "set, and the shapes scaled to the file")
    else:
        report.changed(WRONG_SIZE, _sizes(entry), "set; coordinates kept as they are")


def _sizes(entry: Entry) -> str:
    recorded, found = entry.recorded or (0, 0), entry.size or (0, 0)
    return f"{entry.where}: {recorded[1]} x {recorded[0]}, file {found[1]} x {found[0]}"


def _reach_says_scaled(annotations: Sequence[Record], recorded: Size, found: Size) -> bool:
    """Whether some vertex lies outside the file's size and none outside the record's, by more than a pixel."""
    right, bottom = 0.0, 0.0
    for record in annotations:
        parts = record.get("segmentation")
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, list) and part and all(type(value) in (int, float) for value in part):
                right = max([right, *part[0::2]])
                bottom = max([bottom, *part[1::2]])
    beyond_file = right > found[1] + 1 or bottom > found[0] + 1
    return beyond_file and right <= recorded[1] + 1 and bottom <= recorded[0] + 1


def _entry(record: Record) -> Entry:
    name = record.get("file_name")
    name = name if isinstance(name, str) and "\0" not in name else ""
    key = key_of(record.get("id"))
    where = f"image {shown(record.get('id'))}" if key is not None else shown(name or "image without id")
    return Entry(record, where, key, name, size_of(record.get("height"), record.get("width")))


def _find(entry: Entry, finder: Finder, report: Report) -> None:
    """Set the path of an entry, or the reason why it has none."""
    where = f"{entry.where}: {shown(entry.name)}"
    if not entry.name:
        entry.aside = "it has no file name"
        report.left("image without file_name", entry.where, ASIDE)
        return
    entry.path, how = finder.find(entry.name)
    if entry.path is None:
        entry.aside = "its file is missing"
        report.left(MISSING, where, f"{how}, with their annotations")
    elif how:
        report.changed("image file is not where file_name says", where, how)
    elif is_absolute(entry.name):
        report.changed("file_name that holds on one machine only", where, "made relative")


def _judge_file(entry: Entry, report: Report) -> None:
    """Report the faults of an image's file."""
    picture = entry.picture
    if picture is None:
        return
    where = f"{entry.where}: {shown(entry.name)}"
    if picture.broken:
        entry.aside = picture.reason
        report.left(picture.broken, where, ASIDE)
    for fault in picture.faults:
        if fault == TURNED and entry.recorded == picture.stored != picture.upright:
            continue  # Reported with its size.
        report.changed(fault, where, REPAIRS[fault])


def name_images(entries: Sequence[Entry]) -> None:
    """Give every kept image its file name in the repaired copy: below ``images/``, safe and unique."""
    taken: set[str] = set()
    for entry in entries:
        if not entry.kept or entry.path is None or entry.picture is None:
            continue
        place = PurePosixPath(*safe_parts(entry.name))
        suffix = ".png" if entry.picture.faults else entry.path.suffix
        stem, count = place.with_suffix("").as_posix() if place.suffix else place.as_posix(), 1
        name = f"{stem}{suffix}"
        while name.lower() in taken:
            count += 1
            name = f"{stem}_{count}{suffix}"
        taken.add(name.lower())
        entry.new_name = f"images/{name}"


def safe_parts(name: str) -> tuple[str, ...]:
    """Return the parts of a file name that lead below a folder, without a leading ``images``.

    Of a path that holds on one machine only the file itself is left.
    """
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "//", ".", "..")]
    if is_absolute(name) or not parts:
        parts = parts[-1:] or ["image"]
    if len(parts) > 1 and parts[0].lower() == "images":
        parts = parts[1:]
    return tuple(parts)


def image_record(entry: Entry) -> dict[str, Any]:
    """Return the record of the repaired copy."""
    height, width = entry.size or (0, 0)
    made: dict[str, Any] = {
        **entry.record, "id": entry.new_id, "file_name": entry.new_name, "height": height, "width": width,
    }
    if entry.record.get("id") != entry.new_id and isinstance(entry.record.get("id"), (int, str)):
        made.setdefault("source_id", entry.record["id"])
    if entry.lost:
        made["set_aside"] = entry.lost
    return made
