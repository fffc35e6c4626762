"""What is kept of every prompted object until the scores are computed: small and plain."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ultrasam.errors import DataError
from ultrasam.evaluation.overlap import dice_of_iou, rle_iou
from ultrasam.geometry.rle import encode_mask, measure_rles, rle_area, rle_box

Box = tuple[float, float, float, float]
Id = int | str


@dataclass(frozen=True)
class ObjectRecord:
    """One object, its prompt's kind, and the mask predicted for it.

    Attributes:
        dataset: Slug of the data set; empty when there is none.
        group: What must not be split, e.g. a patient.
        image_path: Path of the image file.
        image_id: Id of the image in its annotation file.
        annotation_id: Id of the object in its annotation file.
        repeat: How many objects of the same id come before it in its image: 0 in a sound file.
        truth: RLE of the true mask at original size.
        mask: RLE of the predicted mask at original size; None where nothing was predicted.
        score: Predicted IoU; 0 where nothing was predicted.
        box: Predicted box x1, y1, x2, y2 in original pixels.
        prompt: `point`, `box`, or empty when not known.
        application: What the data set is for (`breast lesions`), or empty.
        spacing: Millimetres of a pixel along (rows, columns), or None where not known.
        points: Clicks as (x, y, label) in original pixels, label 1 inside and 0 outside.
        prompt_box: Box prompt x1, y1, x2, y2 in original pixels, or None.
        other_order: Name of the other mask order, `released` or `logits`; empty where only one was made.
        other_mask: RLE of the mask that the same prediction gives in the other order, or None.
        other_box: Its box.
    """

    dataset: str
    group: str
    image_path: str
    image_id: Id
    annotation_id: Id
    repeat: int
    truth: dict[str, Any]
    mask: dict[str, Any] | None
    score: float
    box: Box
    prompt: str
    application: str = ""
    spacing: tuple[float, float] | None = None
    points: tuple[tuple[float, float, int], ...] = ()
    prompt_box: Box | None = None
    other_order: str = ""
    other_mask: dict[str, Any] | None = None
    other_box: Box = (0.0, 0.0, 0.0, 0.0)

    @property
    def image_key(self) -> tuple[Any, ...]:
        """Identity of the image; sorts the same way whichever process saw it."""
        return (self.dataset, self.image_path, *_sortable(self.image_id))

    @property
    def key(self) -> tuple[Any, ...]:
        """Identity of the object, over data sets and processes."""
        return (*self.image_key, *_sortable(self.annotation_id), self.repeat)

    @cached_property
    def truth_area(self) -> int:
        """Pixels of the true mask."""
        return rle_area(self.truth)

    @cached_property
    def truth_box(self) -> Box:
        """Box of the true mask: x1, y1, x2, y2, original pixels, half-open."""
        return rle_box(self.truth)

    @cached_property
    def mask_area(self) -> int:
        """Pixels of the predicted mask."""
        return rle_area(self.mask) if self.mask is not None else 0

    @cached_property
    def mask_box(self) -> Box:
        """Box of the predicted mask itself, zeros where there is none: x1, y1, x2, y2, original pixels, half-open."""
        return rle_box(self.mask) if self.mask is not None else (0.0, 0.0, 0.0, 0.0)

    @cached_property
    def iou(self) -> float:
        """IoU with the truth; NaN where both are empty."""
        if self.mask is not None:
            return rle_iou(self.mask, self.truth)
        return 0.0 if self.truth_area else math.nan

    @property
    def dice(self) -> float:
        """Dice score with the truth; NaN where both are empty."""
        return dice_of_iou(self.iou)


def records_of(sample: Mapping[str, Any]) -> list[ObjectRecord]:
    """Turn a predicted data sample, as `DetDataSample.to_dict()` gives it, into its objects' records.

    Args:
        sample: `img_id`, `img_path`, `ori_shape`, `dataset`, `group`; `gt_instances` with `rles` and
            `annotation_ids`; `pred_instances` with `masks` (N, H, W), `scores` (N), and optionally `bboxes`
            (N, 4); optionally `prompt_instances` with `kind` (N). No prediction at all (N = 0) is legal. With
            `other_order`, `pred_instances` also has `other_masks` and `other_bboxes`.

    Raises:
        DataError: Truth is missing, or the number or the size of masks differs from it, or a score is not
            finite.
    """
    where = f"image {sample.get('img_path') or sample.get('img_id')}"
    truth = sample.get("gt_instances")
    if truth is None or "rles" not in truth:
        raise DataError(
            f"The data sample of {where} carries no true masks ('gt_instances.rles'): test with a pipeline "
            "that packs them, since the metric reads the truth from the samples themselves."
        )
    rles = list(truth["rles"])
    ids = [_plain_id(v) for v in _listed(truth.get("annotation_ids"), len(rles), where)]
    masks, scores, boxes = _predicted(sample.get("pred_instances"), len(rles), where)
    order = str(sample.get("other_order") or "")
    others, other_boxes = _predicted_otherwise(sample.get("pred_instances"), order, masks)
    prompts = sample.get("prompt_instances") or {}
    kinds = list(prompts.get("kind") or [""] * len(rles))
    size = [int(v) for v in sample["ori_shape"][:2]]
    seen: dict[Id, int] = {}
    records = []
    for i, rle in enumerate(rles):
        _check_size(list(rle["size"]), size, f"The true mask {i} of {where}")
        mask = None
        if masks is not None:
            _check_size(list(masks[i].shape), size, f"The predicted mask {i} of {where}")
            mask = encode_mask(masks[i])
        other = None if others is None else encode_mask(others[i])
        repeat = seen.get(ids[i], 0)
        seen[ids[i]] = repeat + 1
        records.append(
            ObjectRecord(
                dataset=str(sample.get("dataset") or ""),
                group=str(sample.get("group") or ""),
                image_path=str(sample.get("img_path") or ""),
                image_id=_plain_id(sample.get("img_id", "")),
                annotation_id=ids[i],
                repeat=repeat,
                truth={"size": size, "counts": _text(rle["counts"])},
                mask=mask,
                score=_score(scores[i], where),
                box=_box(boxes, i, mask, where),
                prompt=str(kinds[i]),
                application=str(sample.get("application") or ""),
                spacing=sample.get("spacing"),
                points=_clicks(prompts, i),
                prompt_box=_prompt_box(prompts, i),
                other_order=order,
                other_mask=other,
                other_box=_box(other_boxes, i, other, where),
            )
        )
    return records


def unique(records: Iterable[ObjectRecord]) -> list[ObjectRecord]:
    """Drop what a sampler repeated to fill the last batch, sort by identity, whoever saw what, and measure masks."""
    kept: dict[tuple[Any, ...], ObjectRecord] = {}
    for record in records:
        kept.setdefault(record.key, record)
    return measured([kept[key] for key in sorted(kept)])


def measured(records: Sequence[ObjectRecord]) -> list[ObjectRecord]:
    """Return the objects with areas and boxes already known: all masks at once take a tenth of one after the other."""
    found = list(records)
    predicted = [record for record in found if record.mask is not None]
    rles = [record.truth for record in found] + [record.mask for record in predicted if record.mask is not None]
    names = [f"the {what} mask of object {r.annotation_id} of {r.image_path or r.image_id}"
             for what, part in (("true", found), ("predicted", predicted)) for r in part]  # fmt: skip
    areas, boxes = measure_rles(rles, names)
    for record, area, box in zip(found, areas.tolist(), boxes.tolist(), strict=False):
        # Where a cached property keeps its value.
        vars(record).update(truth_area=area, truth_box=tuple(box))
    rest = slice(len(found), None)
    for record, area, box in zip(predicted, areas[rest].tolist(), boxes[rest].tolist(), strict=True):
        vars(record).update(mask_area=area, mask_box=tuple(box))
    return found


def _predicted(found: Mapping[str, Any] | None, count: int, where: str) -> tuple[Any, Any, Any]:
    """Return masks (bool, N, H, W; None when nothing was predicted), scores (N), boxes (N, 4; or None)."""
    masks = None if found is None else found.get("masks")
    if found is None or masks is None or len(masks) == 0:
        return None, np.zeros(count), None
    if len(masks) != count or len(found["scores"]) != count:
        raise DataError(
            f"The model gave {len(masks)} masks and {len(found['scores'])} scores for the {count} prompted "
            f"objects of {where}: it must give one of each, in the order of the prompts."
        )
    boxes = found.get("bboxes")
    return _array(masks).astype(bool), _array(found["scores"]), None if boxes is None else _array(boxes)


def _predicted_otherwise(found: Mapping[str, Any] | None, order: str, masks: Any) -> tuple[Any, Any]:
    """Return masks (bool, N, H, W) and boxes (N, 4) of the other order, None where there are none."""
    if found is None or not order or masks is None:
        return None, None
    return _array(found["other_masks"]).astype(bool), _array(found["other_bboxes"])


def _box(boxes: Any, index: int, mask: dict[str, Any] | None, where: str) -> Box:
    """Return the predicted box, that of the mask where the model gave none, zeros for an empty mask."""
    if mask is None or not rle_area(mask):
        return (0.0, 0.0, 0.0, 0.0)
    if boxes is None:
        return rle_box(mask)
    x1, y1, x2, y2 = (float(v) for v in boxes[index])
    if not math.isfinite(x1 + y1 + x2 + y2):
        raise DataError(
            f"The predicted box {index} of {where} is ({x1}, {y1}, {x2}, {y2}): it must be finite."
        )
    return (x1, y1, x2, y2)


def _clicks(prompts: Mapping[str, Any], index: int) -> tuple[tuple[float, float, int], ...]:
    """Return the clicks of one object, where the sample carries them."""
    points = prompts.get("points")
    if points is None or not len(points[index]):
        return ()
    coords = _array(points[index]).reshape(-1, 2)
    labels = prompts.get("point_labels")
    signs = np.ones(len(coords)) if labels is None else _array(labels[index]).reshape(-1)
    return tuple((float(x), float(y), int(sign)) for (x, y), sign in zip(coords, signs, strict=True))


def _prompt_box(prompts: Mapping[str, Any], index: int) -> Box | None:
    """Return the box prompt of one object, or None."""
    boxes = prompts.get("boxes")
    if boxes is None:
        return None
    x1, y1, x2, y2 = (float(value) for value in _array(boxes)[index])
    return None if math.isnan(x1) else (x1, y1, x2, y2)


def _score(value: Any, where: str) -> float:
    score = float(value)
    if not math.isfinite(score):
        raise DataError(
            f"A mask of {where} has the score {score}, which cannot be ranked: look for a diverged training "
            "or a damaged weight file."
        )
    return score


def _check_size(found: list[int], size: list[int], what: str) -> None:
    if [int(v) for v in found] != size:
        raise DataError(
            f"{what} is {found[0]} x {found[1]} (height x width), but the image is {size[0]} x {size[1]}: "
            "masks must be at the original size of their image."
        )


def _array(values: Any) -> Any:
    """Return a NumPy array of a tensor (any device, also bfloat16), an array, a list, or mmdet's boxes."""
    values = getattr(values, "tensor", values)
    if hasattr(values, "detach"):
        values = values.detach()
        return (values.float() if values.is_floating_point() else values).cpu().numpy()
    return np.asarray(values)


def _listed(values: Any, count: int, where: str) -> list[Any]:
    """Return annotation ids as a list; positions where the sample carries none."""
    if values is None:
        return list(range(count))
    listed = list(values)
    if len(listed) != count:
        raise DataError(
            f"{where[0].upper()}{where[1:]} has {count} true masks but {len(listed)} annotation ids."
        )
    return listed


def _plain_id(value: Any) -> Id:
    """Return a built-in int or str of a tensor's or array's element, an int, or anything else as text."""
    value = value.item() if hasattr(value, "item") else value
    return value if isinstance(value, int) else str(value)


def _sortable(value: Id) -> tuple[int, int, str]:
    """Let integer and text ids be sorted together: numbers first."""
    return (0, value, "") if isinstance(value, int) else (1, 0, value)


def _text(counts: Any) -> str:
    return counts.decode("ascii") if isinstance(counts, bytes) else str(counts)
