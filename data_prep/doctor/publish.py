"""Writing the repaired copy, whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.doctor.pictures import repaired_pixels
from data_prep.doctor.report import LeftOut
from data_prep.doctor.values import plain
from data_prep.folders.fresh import fresh_folder
from ultrasam.datasets.coco import write_coco
from ultrasam.io.images import write_png


@dataclass(frozen=True)
class StoredImage:
    """An image of the repaired copy.

    Attributes:
        path: the file as found.
        name: where it goes, relative to the copy.
        convert: write it anew as 8-bit RGB; otherwise its bytes are kept.
        orientation: its EXIF orientation.
        as_stored: without that orientation.
    """

    path: Path
    name: str
    convert: bool
    orientation: int = 1
    as_stored: bool = False


def write_copy(
    out: Path, content: Mapping[str, Any], images: Sequence[StoredImage], left_out: LeftOut
) -> None:
    """Write ``annotations.json``, ``images/`` and, where something was left out, ``left_out.json``.

    Raises:
        ConfigError: ``out`` is there already and holds something.
        DataError: a file cannot be written.
    """
    with fresh_folder(out) as folder:
        for image in images:
            target = folder / image.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if image.convert:
                write_png(target, repaired_pixels(image.path, image.orientation, as_stored=image.as_stored))
            else:
                _link(image.path.resolve(), target)
        write_coco(folder / "annotations.json", content)
        if left_out.records:
            write_coco(folder / "left_out.json", plain(left_out.records))


def _link(source: Path, target: Path) -> None:
    """Put a file under a second name, or copy it where that cannot be done (another disk)."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
