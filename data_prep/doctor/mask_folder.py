"""The examination of a folder of images and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_prep.doctor.diagnose import Diagnosis
from data_prep.doctor.images import probe_all
from data_prep.doctor.pictures import EMPTY_FILE, POINTER, REPAIRS, Picture, probe
from data_prep.doctor.publish import StoredImage
from data_prep.doctor.report import LeftOut, Report, shown
from data_prep.doctor.values import Size, same_shape
from data_prep.folders.pairing import Pair, Pairing, best_suffix, pair_files
from ultrasam.errors import DataError
from ultrasam.geometry.rle import encode_mask, rle_area, rle_box
from ultrasam.io.images import read_mask

_IMAGE_FOLDERS = frozenset(("images", "image", "imgs", "img", "us images", "original"))
_MASK_FOLDERS = frozenset(("masks", "mask", "labels", "label", "gt", "groundtruth", "ground_truth", "annotations",
                           "segmentations", "segmentation", "expert mask images"))
_LARGEST_LABEL = 31
_THRESHOLD = 127
# Of the pixels, so many may lie between black and white: more is not the border of a shape.
_SOFT_SHARE = 0.2

OTHER_SIZE = "mask of another size than its image"
GREYS = "mask with grey values between black and white"
ONE_GREY = "mask whose foreground is neither 1 nor 255"
LEVELS = "mask with several grey levels"
COLOURS = "mask with colours or NaN"
WITHOUT_MASK = "image without mask"
WITHOUT_IMAGE = "mask without image"
ONE_STEM = "several files with one name"


@dataclass(frozen=True)
class _Mask:
    """A mask file as it was read: its values, or the reason why there are none."""

    path: Path
    values: np.ndarray | None
    reason: str = ""


def diagnose_folder(folder: Path, images: Path | None = None) -> Diagnosis:
    """Examine a folder of images and masks.

    The repaired copy is a COCO file with one object for every mask file, or for every value of it where all masks
    are label maps of values up to 31.

    Args:
        folder: holds ``images/`` and ``masks/`` (or folders of similar names), or files ``a.png`` and
            ``a_mask.png`` side by side; the masks alone where ``images`` is given.
        images: folder of the images.

    Raises:
        DataError: no such layout.
    """
    report, left_out = Report(), LeftOut()
    places = (images, folder) if images is not None else _layout(folder)
    suffix = best_suffix(*places)
    pairing = pair_files(*places, suffix)
    _report_pairing(pairing, report, left_out)
    pictures = dict(zip([pair.image for pair in pairing.pairs],
                        probe_all([pair.image for pair in pairing.pairs]), strict=True))
    tops = [_top(path) for pair in pairing.pairs for path in pair.masks]
    labels = 1 < max(tops, default=0) <= _LARGEST_LABEL
    objects: list[tuple[int, str, np.ndarray]] = []
    kept: list[tuple[Pair, Picture]] = []
    for pair in pairing.pairs:
        picture = pictures[pair.image]
        found = _objects(pair, picture, report, left_out, labels=labels)
        if found is not None:
            kept.append((pair, picture))
            objects += [(len(kept), name, mask) for name, mask in found]
    content, stored = _content(kept, objects)
    summary = f"{folder}: {len(pairing.pairs)} pairs of image (in {places[0]}) and mask (in {places[1]})"
    if not pairing.pairs:
        summary += "; no mask has the name of an image, plain or with an ending such as _mask"
    elif suffix:
        summary += f", the names of masks end in {suffix!r}"
    return Diagnosis(summary, report, left_out, content, stored)


def _layout(folder: Path) -> tuple[Path, Path]:
    """Return the folders of images and masks."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    images = [path for path in inside if path.name.lower() in _IMAGE_FOLDERS]
    masks = [path for path in inside if path.name.lower() in _MASK_FOLDERS]
    if len(images) == len(masks) == 1:
        return images[0], masks[0]
    if images or masks or not any(path.is_file() for path in folder.iterdir()):
        files = sorted(path.name for path in folder.glob("*.json"))
        hint = f"; it holds {files[0]}: give that file" if files else "; name the two with FOLDER --images DIR"
        raise DataError(f"{folder}: a folder images and a folder masks were expected, found "
                        f"{shown([path.name for path in inside])}{hint}")
    return folder, folder


def _report_pairing(pairing: Pairing, report: Report, left_out: LeftOut) -> None:
    """Report files that are in no pair."""
    for path in pairing.without_mask:
        report.left(WITHOUT_MASK, shown(path.name), "set aside: an image without objects needs a black mask")
        left_out.add("images", {"file": str(path)}, "it has no mask")
    for path in pairing.without_image:
        report.left(WITHOUT_IMAGE, shown(path.name), "set aside")
        left_out.add("masks", {"file": str(path)}, "it has no image")
    for stem, files in pairing.ambiguous.items():
        report.left(ONE_STEM, f"{shown(stem)}: {', '.join(path.suffix for path in files)}", "set aside, all of them")
        for path in files:
            left_out.add("images", {"file": str(path)}, f"several files are named {shown(stem)}")


def _top(path: Path) -> int:
    """Return the largest value of a mask file, 0 where it cannot be read (which is reported later)."""
    return int(values.max()) if (values := _read(path).values) is not None else 0


def _read(path: Path) -> _Mask:
    try:
        return _Mask(path, read_mask(path))
    except DataError as error:
        return _Mask(path, None, str(error))


def _objects(
    pair: Pair, picture: Picture, report: Report, left_out: LeftOut, *, labels: bool
) -> list[tuple[str, np.ndarray]] | None:
    """Return (category, mask) of every object of an image; None, and a report, where it cannot be used."""
    where = shown(pair.image.name)
    if picture.broken:
        report.left(picture.broken, where, "set aside, with their masks")
        left_out.add("images", {"file": str(pair.image)}, picture.reason)
        return None
    objects: list[tuple[str, np.ndarray]] = []
    notes: list[tuple[str, str, str]] = []
    for path in pair.masks:
        mask = _read(path)
        fault, why = _refusal(mask, picture.upright, labels=labels)
        if fault or mask.values is None:
            report.left(fault, shown(path.name), f"set aside, with their images{why}")
            left_out.add("images", {"file": str(pair.image), "mask": str(path)}, mask.reason or fault)
            return None
        values = mask.values
        if values.shape != picture.upright:
            notes.append((OTHER_SIZE, _sizes(path, values.shape, picture.upright), "resized (nearest pixel)"))
            values = _resized(values, picture.upright, soft=not labels)
        objects += _split(path, values, notes, labels=labels)
    for fault in picture.faults:
        report.changed(fault, where, REPAIRS[fault])
    for fault, example, what in notes:
        report.changed(fault, example, what)
    return objects


def _refusal(mask: _Mask, size: Size, *, labels: bool) -> tuple[str, str]:
    """Return the fault that makes a mask useless and what to do about it; empty where there is none."""
    if mask.values is None:
        broken = probe(mask.path).broken
        known = {EMPTY_FILE: "mask file of 0 bytes", POINTER: "mask file is a Git-LFS or git-annex pointer"}
        fault = known.get(broken, "mask truncated, damaged or no image") if broken else COLOURS
        return fault, "" if broken else ": from-masks --colours names them"
    if not same_shape(mask.values.shape, size):
        return OTHER_SIZE, ": not even the same shape"
    if not labels and _is_label_map(mask.values):
        return LEVELS, ": from-masks --labels names them"
    return "", ""


def _is_label_map(values: np.ndarray) -> bool:
    """Whether there are areas of one grey between black and white, or too many such pixels for a border."""
    top = int(values.max())
    if top > 255:
        return len(np.unique(values)) > 2
    if 1 < top <= _LARGEST_LABEL:
        return len(np.unique(values)) > 2
    between = (values >= 64) & (values <= 192)
    grey = values.astype(np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    flat = cv2.dilate(grey, kernel) == cv2.erode(grey, kernel)
    several = len(np.unique(values)) > 2
    return several and bool((flat & between).any() or between.mean() > _SOFT_SHARE)


def _split(
    path: Path, values: np.ndarray, notes: list[tuple[str, str, str]], *, labels: bool
) -> list[tuple[str, np.ndarray]]:
    """Return (category, mask) of one mask file, and note what was unusual about it."""
    found = np.unique(values).tolist()
    nonzero = [value for value in found if value]
    if labels:
        return [(f"label_{value}", values == value) for value in nonzero]
    if len(nonzero) > 1:
        notes.append((GREYS, f"{shown(path.name)}: {shown(found)}", f"made black and white at {_THRESHOLD}"))
        mask = values > _THRESHOLD
        return [("object", mask)] if mask.any() else []
    if nonzero and nonzero[0] not in (1, 255):
        notes.append((ONE_GREY, f"{shown(path.name)}: {nonzero[0]}", "taken as foreground"))
    return [("object", values > 0)] if nonzero else []


def _resized(values: np.ndarray, size: Size, *, soft: bool) -> np.ndarray:
    """Return the values at another size, never mixed; greys are first made black and white."""
    if soft and len(np.unique(values)) > 2:
        values = np.where(values > _THRESHOLD, 255, 0).astype(values.dtype)
    return np.asarray(cv2.resize(values, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT))


def _sizes(path: Path, found: tuple[int, ...], size: Size) -> str:
    return f"{shown(path.name)}: {found[1]} x {found[0]}, image {size[1]} x {size[0]}"


def _content(
    kept: Sequence[tuple[Pair, Picture]], objects: Sequence[tuple[int, str, np.ndarray]]
) -> tuple[dict[str, Any], list[StoredImage]]:
    """Return the COCO document and the image files of the usable pairs."""
    names = sorted({name for _, name, _ in objects}, key=lambda name: (len(name), name)) or ["object"]
    images: list[dict[str, Any]] = []
    stored: list[StoredImage] = []
    for number, (pair, picture) in enumerate(kept, start=1):
        suffix = ".png" if picture.faults else pair.image.suffix
        file_name = f"images/{pair.stem}{suffix}"
        height, width = picture.upright
        images.append({"id": number, "file_name": file_name, "height": height, "width": width})
        stored.append(StoredImage(pair.image, file_name, bool(picture.faults), picture.orientation))
    annotations: list[dict[str, Any]] = []
    for image_id, name, mask in objects:
        rle = encode_mask(mask)
        x1, y1, x2, y2 = rle_box(rle)
        annotations.append({"id": len(annotations) + 1, "image_id": image_id, "category_id": names.index(name) + 1,
                            "segmentation": rle, "area": rle_area(rle), "bbox": [x1, y1, x2 - x1, y2 - y1],
                            "iscrowd": 0})
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}, stored
