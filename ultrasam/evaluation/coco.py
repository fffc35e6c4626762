"""Average precision of masks or boxes by COCO's rules, for one class and any number of objects an image.

Two habits of COCO's evaluation go wrong on prompted ultrasound data without a word: an annotation whose id is
0 (or appears twice) is never matched, and only the 100 best predictions of an image are read. Both are closed
here: every id is replaced before the evaluation, and the limit is raised to the most predictions of an image.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO, COCOeval_faster
from pycocotools import mask as rle_tools

from ultrasam.errors import ConfigError, DataError
from ultrasam.geometry.rle import decode_segmentation, measure_rles

IOU_TYPES = ("segm", "bbox")
IOU_THRESHOLDS: npt.NDArray[np.float64] = np.linspace(0.5, 0.95, 10)
CATEGORY = 1

_LOG = logging.getLogger(__name__)
_AREAS = (("mAP", "all"), ("mAP_s", "small"), ("mAP_m", "medium"), ("mAP_l", "large"))


class MaskEvaluation(COCOeval_faster):
    """faster-coco-eval's evaluation with overlaps of masks by pycocotools, which needs no copies of all masks.

    It is built for boxes, so that no copies are made; annotations carry `segmentation` beside their box.
    """

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802, N803
        """Return the IoU of the predictions of an image, best score first, with its objects: (D, T)."""
        truths = self.cocoGt.imgToAnns[imgId]
        # Sorting is stable: of equal scores the first given is the first.
        found = sorted(self.cocoDt.imgToAnns[imgId], key=lambda item: -item["score"])
        if not truths or not found:
            return []
        masks = ([item["segmentation"] for item in part] for part in (found, truths))
        return rle_tools.iou(*masks, [0] * len(truths))


def coco_metrics(
    images: Sequence[Mapping[str, Any]],
    truths: Sequence[Mapping[str, Any]],
    predictions: Sequence[Mapping[str, Any]],
    iou_type: str = "segm",
    *,
    measured: bool = False,
) -> dict[str, float]:
    """Compute COCO's average precision of class-agnostic predictions.

    Ids are only used to tell which image an object belongs to: they may be integers or text, 0 or repeated
    (the annotations' own ids are not read at all). Categories are not read either. Predictions of equal score
    rank in the order given.

    Args:
        images: COCO images: `id` (unique), `height`, `width` in pixels.
        truths: COCO annotations: `image_id` and `segmentation` (polygons or an RLE of the image's size),
        `bbox`
            (x, y, width, height, pixels), or both; a box not given is that of the mask.
        predictions: The same with a `score`. May be empty: every score is then 0.
        iou_type: `"segm"` compares masks, `"bbox"` boxes.
        measured: Every row has a sound compressed RLE of its image's size, its `area` and its `bbox`, all checked
            before; they are not looked at again, which takes most of the time.

    Returns:
        `mAP` (mean over the IoU thresholds .50:.05:.95), `mAP_50`, `mAP_75`, and `mAP_s`, `mAP_m`, `mAP_l`
        (true mask smaller than 32 x 32 pixels, up to 96 x 96, larger) where objects of that size exist; all
        in 0-1.

    Raises:
        ConfigError: `iou_type` is neither of the two.
        DataError: No objects, repeated image ids, an object of an unknown image, a damaged mask or one of
            another size, no finite score, or neither a mask nor a box.
    """
    if iou_type not in IOU_TYPES:
        raise ConfigError(
            f"iou_type is {iou_type!r}, but only 'segm' (masks) and 'bbox' (boxes) exist: use one of them."
        )
    if not truths:
        raise DataError(
            f"There are no objects to compare {len(predictions)} predictions with on {len(images)} images: "
            "average precision needs at least one annotation, so give the annotation file of the split that "
            "was predicted."
        )
    numbers = _image_numbers(images)
    sizes = [(int(image["height"]), int(image["width"])) for image in images]
    shown = [{"id": i + 1, "height": size[0], "width": size[1]} for i, size in enumerate(sizes)]
    truth_set = _dataset(shown, _objects(truths, numbers, sizes, iou_type, "annotation", measured))
    found_set = _dataset(shown, _objects(predictions, numbers, sizes, iou_type, "prediction", measured))
    evaluate = MaskEvaluation if iou_type == "segm" else COCOeval_faster
    evaluation = evaluate(truth_set, found_set, iouType="bbox", print_function=_LOG.debug)
    most = max(Counter(p["image_id"] for p in predictions).values(), default=0)
    evaluation.params.maxDets = [1, 10, max(100, most)]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"], dtype=np.float64)
    return _read(precision, list(evaluation.params.areaRngLbl))


def _read(precision: npt.NDArray[np.float64], areas: list[str]) -> dict[str, float]:
    """Average `precision` (thresholds, recalls, classes, areas, limits), where -1 stands for "no objects"."""
    metrics = {}
    for name, area in _AREAS:
        table = precision[:, :, :, areas.index(area), -1]
        if not (table > -1).any():
            continue
        metrics[name] = float(table[table > -1].mean())
        if area == "all":
            metrics["mAP_50"] = float(table[0].mean())
            metrics["mAP_75"] = float(table[5].mean())
    return metrics


def _image_numbers(images: Sequence[Mapping[str, Any]]) -> dict[Any, int]:
    """Number the images from 1."""
    numbers = {image["id"]: i + 1 for i, image in enumerate(images)}
    if len(numbers) != len(images):
        repeated, count = Counter(image["id"] for image in images).most_common(1)[0]
        raise DataError(
            f"Image id {repeated!r} appears {count} times, so its objects cannot be told apart: give every "
            "image its own id before the evaluation."
        )
    return numbers


def _dataset(images: list[dict[str, int]], objects: list[dict[str, Any]]) -> COCO:
    categories = [{"id": CATEGORY, "name": "object"}]
    return COCO({"info": {}, "images": images, "annotations": objects, "categories": categories})


def _objects(
    rows: Sequence[Mapping[str, Any]],
    numbers: Mapping[Any, int],
    sizes: list[tuple[int, int]],
    iou_type: str,
    kind: str,
    measured: bool,
) -> list[dict[str, Any]]:
    """Rewrite annotations or predictions with ids from 1, one category, and the area they are sorted by."""
    objects: list[dict[str, Any]] = []
    for row in rows:
        number = numbers.get(row["image_id"])
        if number is None:
            raise DataError(
                f"One {kind} belongs to image id {row['image_id']!r}, which is not among the {len(numbers)} "
                "images: truth and predictions must come from one annotation file."
            )
        item: dict[str, Any] = {"id": len(objects) + 1, "image_id": number, "category_id": CATEGORY}
        item["iscrowd"] = 0
        if measured:
            item.update({name: row[name] for name in ("segmentation", "area", "bbox")})
        else:
            item.update(_shape(row, sizes[number - 1], iou_type, kind))
        if kind == "prediction":
            item["score"] = _score(row)
        objects.append(item)
    if not measured:
        _measure(objects, kind)
    for item in objects:
        # COCO sorts truth by the area of its mask, and a prediction by the area of what it is compared by.
        if "area" not in item or (iou_type == "bbox" and kind == "prediction"):
            item["area"] = item["bbox"][2] * item["bbox"][3]
    return objects


def _shape(
    row: Mapping[str, Any], size: tuple[int, int], iou_type: str, kind: str
) -> dict[str, dict[str, Any] | list[float]]:
    """Return the mask and the box of one object, those of the two that it has."""
    segmentation, box = row.get("segmentation"), row.get("bbox")
    where = f"The {kind} of image id {row['image_id']!r}"
    shape: dict[str, dict[str, Any] | list[float]] = {}
    if segmentation is not None:
        shape["segmentation"] = decode_segmentation(segmentation, *size, where=where, check=False)
    elif iou_type == "segm" or box is None:
        raise DataError(f"{where} has no mask to compare: give 'segmentation'.")
    if box is not None:
        shape["bbox"] = [float(value) for value in box]
        if len(box) != 4 or not all(math.isfinite(float(value)) for value in box):
            raise DataError(f"{where} has the box {list(box)}, but a box is four finite numbers x, y, w, h.")
    return shape


def _measure(objects: list[dict[str, Any]], kind: str) -> None:
    """Add the area of every object, and its box where it has none, after checking all masks at once."""
    masked = [item for item in objects if "segmentation" in item]
    names = [f"the {kind} {item['id']} of image {item['image_id']} (counted from 1)" for item in masked]
    areas, boxes = measure_rles([item["segmentation"] for item in masked], names)
    for item, area, (x1, y1, x2, y2) in zip(masked, areas.tolist(), boxes.tolist(), strict=True):
        item["area"] = float(area)
        item.setdefault("bbox", [x1, y1, x2 - x1, y2 - y1])


def _score(row: Mapping[str, Any]) -> float:
    score = float(row["score"])
    if not math.isfinite(score):
        raise DataError(
            f"A prediction of image id {row['image_id']!r} has the score {score}, which cannot be ranked: "
            "scores must be finite numbers, so look for a diverged model or a damaged weight file."
        )
    return score
