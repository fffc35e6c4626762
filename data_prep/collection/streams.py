"""Writing large COCO files piece by piece, in the form of `ultrasam.datasets.coco.write_coco`.

Every record is made into text once, with gaps for its ids, and that text goes into all files that hold the record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Text of a record around the values of some of its keys.
Pieces = tuple[str, ...]
_GAP = "\x00"
_FLUSH = 1 << 20


@dataclass(frozen=True)
class FileFacts:
    """What was written: counts, and the checksum of the bytes."""

    images: int
    masks: int
    sha256: str

    def as_json(self) -> dict[str, object]:
        """Return the facts as a manifest has them."""
        return {"images": self.images, "masks": self.masks, "sha256": self.sha256}


def pieces(record: Mapping[str, Any], gaps: Sequence[str]) -> Pieces:
    """Return the text of a record, keys sorted, cut where the values of some keys belong.

    Args:
        record: the record; it need not have the keys of ``gaps``.
        gaps: keys whose values come later, in alphabetical order.
    """
    filled = {**record, **dict.fromkeys(gaps, _GAP)}
    text = json.dumps(filled, sort_keys=True, ensure_ascii=False, allow_nan=False)
    found = tuple(text.split(json.dumps(_GAP)))
    if len(found) != len(gaps) + 1:
        raise ValueError(f"a record without the character {_GAP!r} was expected, found {text[:200]}")
    return found


class CocoStream:
    """A COCO file that grows image by image; ids count from 1 in the order in which they come.

    Args:
        path: the file; its folder exists.
        categories: names in the order of their ids.
    """

    def __init__(self, path: Path, categories: Sequence[str]) -> None:
        self._categories = categories
        self._file = path.open("wb")
        self._hash = hashlib.sha256()
        self._waiting: list[str] = ['{\n"annotations": [']
        self._size = 0
        self._masks = 0
        self._images: list[Pieces] = []

    def add(self, image: Pieces, objects: Sequence[Pieces]) -> None:
        """Add an image (pieces around ``id``) and its objects (pieces around ``id`` and ``image_id``)."""
        self._images.append(image)
        number = len(self._images)
        for before, between, after in objects:
            self._masks += 1
            comma = ",\n" if self._masks > 1 else "\n"
            self._waiting.append(f"{comma}{before}{self._masks}{between}{number}{after}")
            self._size += len(after)
        if self._size > _FLUSH:
            self._flush()

    def close(self) -> FileFacts:
        """Write what is left and return the facts."""
        if self._masks:
            self._waiting.append("\n")
        named = [{"id": number, "name": name} for number, name in enumerate(self._categories, start=1)]
        lines = ",\n".join(json.dumps(category, ensure_ascii=False) for category in named)
        self._waiting.append(f'],\n"categories": [\n{lines}\n],\n"images": [')
        for number, (before, after) in enumerate(self._images, start=1):
            self._waiting.append(f"{',' if number > 1 else ''}\n{before}{number}{after}")
            if number % 10_000 == 0:
                self._flush()
        self._waiting.append("\n]\n}\n")
        self._flush()
        self._file.close()
        return FileFacts(len(self._images), self._masks, self._hash.hexdigest())

    def abandon(self) -> None:
        """Close the file as it is."""
        self._file.close()

    def _flush(self) -> None:
        data = "".join(self._waiting).encode("utf-8")
        self._hash.update(data)
        self._file.write(data)
        self._waiting.clear()
        self._size = 0
