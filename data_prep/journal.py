"""What a conversion has finished, so that a run that was killed continues where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import ultrasam
from data_prep.processing import Converted
from data_prep.records import DatasetInfo, Record
from ultrasam.io.files import write_atomic


class Journal:
    """A file of one line per converted image, valid for one set, source and version.

    Args:
        path: the file; an older one that does not belong to this conversion is replaced.
        info: catalogue entry.
        source: folder or archive that the command named.
        raw: folder of the raw files.
        images: folder of the converted images.
    """

    def __init__(self, path: Path, info: DatasetInfo, source: Path, raw: Path, images: Path) -> None:
        self.path, self.raw, self.images = path, raw, images
        rules = json.dumps([info.slug, asdict(info.rules), info.categories, ultrasam.__version__], default=str)
        columns = [field.name for field in fields(Converted)]
        self.head = json.dumps({"source": str(source.resolve()), "rules": rules, "columns": columns})
        self.lines: dict[str, dict[str, Any]] = {}
        if not self._load():
            path.write_text(self.head + "\n", encoding="utf-8")
            self.lines = {}

    def _load(self) -> bool:
        """Read the file; False when there is none or it belongs to another conversion."""
        if not self.path.is_file():
            return False
        # A line that was being written when the run was killed is not complete, and its image not counted.
        lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        if not lines or lines[0] != self.head:
            return False
        for line in lines[1:]:
            try:
                entry = json.loads(line)
                if {"record", "bytes", "converted"} <= entry.keys():
                    self.lines[entry["converted"]["key"]] = entry
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
        # Appending after half a line would spoil the next one.
        whole = "\n".join([self.head, *(json.dumps(entry) for entry in self.lines.values())]) + "\n"
        write_atomic(self.path, whole.encode())
        return True

    def finished(self, record: Record) -> Converted | None:
        """Return the earlier outcome of a record whose raw files and converted image are still the same."""
        entry = self.lines.get(record.key)
        if entry is None or entry.get("record") != self._state(record):
            return None
        done = Converted(**{**entry["converted"], "crop": _tuple(entry["converted"]["crop"])})
        path = self.images / done.file_name
        return done if path.is_file() and path.stat().st_size == entry["bytes"] else None

    def add(self, records: Sequence[Record], outcomes: Sequence[object]) -> None:
        """Append the outcomes that are conversions."""
        with self.path.open("a", encoding="utf-8") as stream:
            for record, done in zip(records, outcomes, strict=True):
                if isinstance(done, Converted):
                    size = (self.images / done.file_name).stat().st_size
                    entry = {"record": self._state(record), "bytes": size, "converted": asdict(done)}
                    stream.write(json.dumps(entry) + "\n")

    def _state(self, record: Record) -> str:
        """Return a checksum of what the record states and of its raw files' names, sizes and times."""
        files = []
        for path in record.paths:
            found = path.stat() if path.is_file() else None
            files.append((path.relative_to(self.raw).as_posix(),
                          None if found is None else (found.st_size, found.st_mtime_ns)))
        # The raw folder may be named in another way in every run.
        stated = repr(record).replace(f"Path('{self.raw}/", "Path('")
        return hashlib.sha256(f"{stated}{files}".encode()).hexdigest()


def _tuple(values: list[int] | None) -> tuple[int, int, int, int] | None:
    """Return a crop that came from JSON as it was."""
    return None if values is None else (values[0], values[1], values[2], values[3])
