"""The work on one image: read, check, copy, encode. It runs in worker processes."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_prep.fov import background_crop, field_of_view
from data_prep.masks import apply_rules
from data_prep.records import DatasetInfo, MaskRules, Record
from ultrasam.errors import DataError
from ultrasam.geometry.extent import extent_of
from ultrasam.geometry.rle import encode_mask, rle_area, rle_box
from ultrasam.io.images import write_png
from ultrasam.io.perceptual_hash import perceptual_hash

# Bytes of a file in memory at a time.
_PIECE = 1 << 20
_COPIED = {b"\x89PNG\r\n\x1a\n": (".png",), b"\xff\xd8\xff": (".jpg", ".jpeg")}


@dataclass(frozen=True)
class Failure:
    """An image that could not be converted."""

    key: str
    reason: str
    missing: bool = False


@dataclass(frozen=True)
class Unlabelled:
    """An image that nobody annotated, of a set in which every image shows an object."""

    key: str


@dataclass(frozen=True)
class Converted:
    """A converted image.

    Attributes:
        file_name: name inside the images folder.
        objects: COCO annotations without ids: category, segmentation, area, bbox.
        checksums: raw file, relative to the source, to SHA-256.
        changes: what the mask rules changed, by name.
        notes: where the files disagree with the set's own tables, one sentence each.
        crop: x1, y1, x2, y2 (half-open) of the raw image that is the converted one; None for all of it.
        phash: perceptual hash of the converted image.
    """

    key: str
    file_name: str
    height: int
    width: int
    objects: list[dict[str, object]]
    checksums: dict[str, str]
    changes: dict[str, int]
    notes: list[str]
    crop: tuple[int, int, int, int] | None
    phash: str


Outcome = Converted | Failure | Unlabelled


def convert_record(record: Record, info: DatasetInfo, raw: Path, images: Path) -> Outcome:
    """Convert one record; the image goes into the folder ``images``.

    Faults of the raw files come back as a `Failure`; OSError of writing is not caught.
    """
    if info.rules.drop_empty and not record.masks:
        return Unlabelled(record.key)
    try:
        absent = " and ".join(_relative(path, raw) for path in record.paths if not path.is_file())
        if absent:
            return Failure(record.key, f"{absent}: the file is not there", missing=True)
        pixels = record.image.read()
        height, width = size = pixels.shape[:2]
        labelled = [pair for source in record.masks for pair in source.read(height, width)]
        if record.box is not None and not any(mask.any() for _, mask in labelled):
            raise DataError(f"{record.paths[-1]}: an object was expected, the mask is empty; "
                            "get the file again")
        if info.rules.drop_empty and not any(mask.any() for _, mask in labelled):
            return Unlabelled(record.key)
        notes = _disagreements(record, size, [mask for _, mask in labelled])
        checksums = {_relative(path, raw): _sha256(path, path.stat().st_mtime_ns) for path in record.paths}
    except DataError as error:
        return Failure(record.key, str(error))
    crop, labelled, cleared = _field_of_view(pixels, labelled, info.rules)
    if crop is not None:
        pixels = np.ascontiguousarray(pixels[crop[1]:crop[3], crop[0]:crop[2]])
    objects, changes = _objects(labelled, info)
    changes |= {"pixels_outside_fov": cleared, "images_cropped": int(crop is not None)}
    name = _store(record, pixels, images, whole=crop is None)
    return Converted(record.key, name, pixels.shape[0], pixels.shape[1], objects, checksums, changes, notes, crop,
                     perceptual_hash(pixels))


def _field_of_view(
    pixels: np.ndarray, labelled: list[tuple[str, np.ndarray]], rules: MaskRules
) -> tuple[tuple[int, int, int, int] | None, list[tuple[str, np.ndarray]], int]:
    """Apply the rules on the field of view.

    Returns:
        the crop or None, the masks (cut to the crop), and the number of label pixels cleared.
    """
    if not rules.clip_to_fov and not rules.crop_background:
        return None, labelled, 0
    fov = field_of_view(pixels)
    cleared = 0
    if rules.clip_to_fov:
        cleared = sum(int((mask & ~fov).sum()) for _, mask in labelled)
        labelled = [(name, mask & fov) for name, mask in labelled]
    crop = background_crop(fov, labelled) if rules.crop_background else None
    if crop is not None:
        x1, y1, x2, y2 = crop
        labelled = [(name, np.ascontiguousarray(mask[y1:y2, x1:x2])) for name, mask in labelled]
    return crop, labelled, cleared


def _objects(
    labelled: list[tuple[str, np.ndarray]], info: DatasetInfo
) -> tuple[list[dict[str, object]], dict[str, int]]:
    """Return the annotations of the labelled masks and the summed changes of the rules."""
    objects: list[dict[str, object]] = []
    changes: dict[str, int] = {}
    for category, mask in labelled:
        parts, changed = apply_rules(mask, info.rules)
        for name, count in changed.items():
            changes[name] = changes.get(name, 0) + count
        for part in parts:
            rle = encode_mask(part)
            x1, y1, x2, y2 = rle_box(rle)
            objects.append({
                "category": category,
                "segmentation": rle,
                "area": rle_area(rle),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
            })
    return objects, changes


def _disagreements(record: Record, size: tuple[int, int], masks: list[np.ndarray]) -> list[str]:
    """Return where size and box of the files are not what the set's tables state.

    Published tables contain slips (a wrong height, the box of an earlier mask), so this alone does not make
    an image unusable; many of them mean that tables and files do not belong together.
    """
    notes = []
    if record.size not in (None, size):
        notes.append(f"{record.key}: the table says (height, width) {record.size}, the image has {size}")
    if record.box is not None:
        found = _box(masks)
        if found != record.box:
            notes.append(f"{record.key}: the table says the box (x1, y1, x2, y2) {record.box}, "
                         f"the mask has {found}")
    return notes


def _box(masks: list[np.ndarray]) -> tuple[int, int, int, int] | None:
    """Return x1, y1, x2, y2 (half-open) around all masks, None where none of them has a pixel."""
    return extent_of(np.logical_or.reduce(masks))


@lru_cache(maxsize=8)
def _sha256(path: Path, _: int) -> str:
    """Return the checksum of a file; the frames of a volume or video ask for the same file again and again.

    Args:
        path: the file, which may be larger than the memory.
        _: time of its last change, so that a file replaced in the meantime is read again.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _store(record: Record, pixels: np.ndarray, images: Path, *, whole: bool) -> str:
    """Put the image into the folder, byte for byte where it is a whole PNG or JPEG; return its file name."""
    raw = record.image.copied if whole else None
    if raw is not None:
        with raw.open("rb") as stream:
            head = stream.read(8)
        suffix = raw.suffix.lower()
        if any(head.startswith(magic) and suffix in suffixes for magic, suffixes in _COPIED.items()):
            shutil.copyfile(raw, images / f"{record.key}{suffix}")
            return f"{record.key}{suffix}"
    write_png(images / f"{record.key}.png", pixels)
    return f"{record.key}.png"


def _relative(path: Path, raw: Path) -> str:
    """Return the path below the raw folder, with forward slashes; DataError for one outside it."""
    if not path.is_relative_to(raw):
        raise DataError(f"{path}: a file inside the source {raw} was expected; give the folder above as the source")
    return path.relative_to(raw).as_posix()


