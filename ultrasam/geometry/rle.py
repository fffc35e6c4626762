"""Masks as COCO run-length encodings, and the one decoder of everything a COCO ``segmentation`` may hold."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from ultrasam.errors import DataError
from ultrasam.geometry.polygon import clip_polygon
from ultrasam.geometry.runs import measure

RLE = dict[str, Any]

_MAX_PIXELS = 2**31 - 1
# Beyond this a coordinate is damage, and clipping would lose its precision.
_MAX_COORDINATE = 1e12


def encode_mask(mask: NDArray[np.bool_]) -> RLE:
    """Encode a mask.

    Args:
        mask: bool (H, W).

    Returns:
        ``{"size": [H, W], "counts": str}``, ready for JSON.

    Raises:
        DataError: the array is not two-dimensional, not boolean, or has no pixel.
    """
    array = np.asarray(mask)
    if array.ndim != 2 or array.dtype != np.bool_ or array.size == 0:
        raise DataError(
            f"a mask must be a non-empty boolean array of shape (height, width), found {array.dtype} "
            f"{array.shape}; compare with a threshold first, for instance mask > 0"
        )
    # pycocotools accepts column-major memory only.
    rle = coco_mask.encode(np.asfortranarray(array, dtype=np.uint8))
    return {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode_mask(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Decode a compressed RLE, checked completely first, to a mask bool (H, W).

    Raises:
        DataError: the RLE is damaged or does not fit its own size.
    """
    height, width, counts = _checked(rle)
    return coco_mask.decode({"size": [height, width], "counts": counts}).astype(bool)


def rle_area(rle: Mapping[str, Any]) -> int:
    """Number of foreground pixels of a compressed RLE."""
    return measure_rles([rle])[0][0].item()


def rle_box(rle: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """Half-open box x1, y1, x2, y2 in pixels around a compressed RLE; all zero for an empty mask."""
    x1, y1, x2, y2 = measure_rles([rle])[1][0].tolist()
    return x1, y1, x2, y2


def measure_rles(
    rles: Sequence[Mapping[str, Any]], names: Sequence[str] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Check many compressed RLEs at once and give their areas and boxes.

    Args:
        rles: N compressed RLEs with valid ``size`` (see :func:`decode_segmentation`).
        names: words that name each of them in an error, by default their position.

    Returns:
        areas int64 (N,) in pixels, boxes float64 (N, 4) half-open x1, y1, x2, y2 (zeros if empty).

    Raises:
        DataError: one of them is damaged.
    """

    def where(index: int) -> str:
        return names[index] if names is not None else f"mask {index}"

    headers = [_header(rle, where(i)) for i, rle in enumerate(rles)]
    sizes = np.array([header[:2] for header in headers], dtype=np.int64).reshape(-1, 2)
    return measure([header[2] for header in headers], sizes[:, 0], sizes[:, 1], where)


def _checked(rle: Mapping[str, Any]) -> tuple[int, int, bytes]:
    height, width, counts = _header(rle, "mask")
    measure([counts], np.array([height]), np.array([width]), lambda _: "mask")
    return height, width, counts


def _header(rle: Mapping[str, Any], where: str) -> tuple[int, int, bytes]:
    """Height, width and ASCII counts of a compressed RLE, without looking into the counts."""
    size, counts = rle.get("size"), rle.get("counts")
    if (
        not isinstance(size, (list, tuple))
        or len(size) != 2
        or not (_is_count(size[0]) and _is_count(size[1]))
    ):
        raise DataError(f"{where}: the RLE needs a size of [height, width] in pixels, found {size!r}")
    height, width = int(size[0]), int(size[1])
    _require_size(height, width, where)
    if isinstance(counts, str):
        if not counts.isascii():
            raise DataError(
                f"{where}: the compressed RLE string is damaged, it is not ASCII; export the mask again"
            )
        counts = counts.encode("ascii")
    if not isinstance(counts, bytes):
        raise DataError(f"{where}: compressed RLE counts must be a string, found {type(counts).__name__}")
    return height, width, counts


def _is_count(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= 0)


def _require_size(height: int, width: int, where: str) -> None:
    """The C code counts pixels in 32 bits."""
    if height < 1 or width < 1 or height * width > _MAX_PIXELS:
        raise DataError(f"{where}: masks have from 1 to {_MAX_PIXELS} pixels, found {height} x {width}")


def decode_segmentation(
    segmentation: object, height: int, width: int, *, where: str, check: bool = True
) -> RLE:
    """Turn any COCO segmentation into a compressed RLE of the image's size.

    Args:
        segmentation: polygons ``[[x, y, x, y, ...], ...]`` (their union is taken; parts outside the image
            are cut off), one flat polygon, a compressed RLE (str or bytes) or an uncompressed RLE (list).
        height: image height in pixels.
        width: image width in pixels.
        where: words that name the annotation and the file in an error.
        check: check compressed counts completely; leave out only when :func:`measure_rles` follows.

    Returns:
        ``{"size": [height, width], "counts": str}``; it may be empty (all background).

    Raises:
        DataError: the value is none of the above, is damaged, has another size, or lies outside the image.
    """
    _require_size(height, width, where)
    if isinstance(segmentation, Mapping):
        return _from_rle(segmentation, height, width, where, check)
    if isinstance(segmentation, (list, tuple)):
        return _from_polygons(segmentation, height, width, where)
    raise DataError(
        f"{where}: a segmentation is a list of polygons or an RLE with 'size' and 'counts', "
        f"found {type(segmentation).__name__} {_short(segmentation)}"
    )


def _from_rle(rle: Mapping[str, Any], height: int, width: int, where: str, check: bool) -> RLE:
    counts = rle.get("counts")
    if isinstance(counts, (list, tuple, np.ndarray)):
        listed = _compress(counts, {**rle, "counts": ""}, where)
        rle, check = listed, False
    rows, columns, text = _header(rle, where)
    if (rows, columns) != (height, width):
        hint = " (height and width look exchanged)" if (rows, columns) == (width, height) else ""
        raise DataError(
            f"{where}: the RLE has size {rows} x {columns} (height x width) but its image has "
            f"{height} x {width}{hint}; export the mask at the size of the image"
        )
    if check:
        measure([text], np.array([height]), np.array([width]), lambda _: where)
    return {"size": [height, width], "counts": text.decode("ascii")}


def _compress(counts: Sequence[Any] | NDArray[Any], rle: Mapping[str, Any], where: str) -> RLE:
    rows, columns, _ = _header(rle, where)
    runs = list(counts)
    if not all(_is_count(n) for n in runs):
        raise DataError(f"{where}: uncompressed RLE counts must be integers from 0, found {_short(runs)}")
    total = sum(int(n) for n in runs)
    if total != rows * columns:
        raise DataError(
            f"{where}: the counts of the RLE sum to {total} but its size {rows} x {columns} has "
            f"{rows * columns} pixels; export the mask again"
        )
    made = coco_mask.frPyObjects({"size": [rows, columns], "counts": [int(n) for n in runs]}, rows, columns)
    return {"size": [rows, columns], "counts": made["counts"].decode("ascii")}


def _from_polygons(segmentation: Sequence[Any], height: int, width: int, where: str) -> RLE:
    if len(segmentation) == 0:
        raise DataError(f"{where}: the segmentation is an empty list; draw a mask or delete the annotation")
    nested = [isinstance(part, (list, tuple, np.ndarray)) for part in segmentation]
    if any(nested) and not all(nested):
        raise DataError(f"{where}: the segmentation mixes polygons and numbers: {_short(segmentation)}")
    parts = list(segmentation) if nested[0] else [segmentation]
    polygons = [clip_polygon(_vertices(part, where), height, width) for part in parts]
    inside = [polygon.reshape(-1).tolist() for polygon in polygons if len(polygon) >= 3]
    if not inside:
        raise DataError(
            f"{where}: the polygon {_short(parts[0])} lies entirely outside its image of {height} x {width} "
            "(height x width); coordinates are x, y in pixels of the image"
        )
    merged = coco_mask.merge(coco_mask.frPyObjects(inside, height, width))
    return {"size": [height, width], "counts": merged["counts"].decode("ascii")}


def _vertices(polygon: Sequence[Any], where: str) -> NDArray[np.float64]:
    """Checked vertices float64 (P, 2), x before y."""
    for value in polygon:
        if not isinstance(value, numbers.Real) or isinstance(value, (bool, np.bool_)):
            raise DataError(f"{where}: polygon coordinates must be numbers, found {_short(value)}")
    if len(polygon) % 2:
        raise DataError(
            f"{where}: a polygon is x, y, x, y, ... but this one has an odd number of values ({len(polygon)})"
        )
    if len(polygon) < 6:
        raise DataError(
            f"{where}: a polygon needs at least three points (6 values), found {len(polygon)} values "
            f"{_short(polygon)}"
        )
    # NaN fails every comparison.
    wrong = [value for value in polygon if not -_MAX_COORDINATE < value < _MAX_COORDINATE]
    if wrong:
        raise DataError(f"{where}: polygon coordinates must be finite pixels, found {_short(wrong[0])}")
    return np.array(polygon, dtype=np.float64).reshape(-1, 2)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
