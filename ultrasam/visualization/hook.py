"""Pictures of what a test predicted, and a word on how many masks there were."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ultrasam.errors import ConfigError
from ultrasam.evaluation.records import ObjectRecord, records_of
from ultrasam.geometry.rle import decode_mask
from ultrasam.io.images import read_image, write_png
from ultrasam.visualization.overlay import contact_sheet, draw_overlay

SHEET = "contact_sheet.png"
_SHEET_COLUMNS = 4


@dataclass(frozen=True)
class Drawn:
    """What one picture shows: its file, a name for captions, mean IoU of its objects, and counts."""

    path: str
    name: str
    iou: float
    masks: int
    empty: int


@HOOKS.register_module()
class VisualizePromptsHook(Hook):
    """Draw prompts, predicted and true masks of every tested image.

    Writes `<out_dir>/<dataset>/<image>-<hash>.png`, where the hash of the image's path and id keeps apart
    images of one name, and `<out_dir>/contact_sheet.png` with the worst, the middle and the best images by
    IoU. Says in the log how many masks were drawn; none at all is logged as an error that names the reason.

    Args:
        out_dir: Folder of the pictures.
        max_images: How many images to draw at most, over all processes; all by default.
        sheet: Whether to write the contact sheet.

    Raises:
        ConfigError: `max_images` is not positive.
    """

    def __init__(self, out_dir: str, max_images: int | None = None, sheet: bool = True) -> None:
        if max_images is not None and max_images < 1:
            raise ConfigError(
                f"max_images of VisualizePromptsHook is {max_images}, but it must be at least 1, or None for "
                "all images."
            )
        self.out_dir = Path(out_dir)
        self.max_images = max_images
        self.sheet = sheet
        self._drawn: dict[str, Drawn] = {}
        self._without_objects = 0

    def before_test_epoch(self, runner: Runner) -> None:
        """Forget an earlier test."""
        self._drawn = {}
        self._without_objects = 0

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Draw the data samples of a batch, as long as the share of this process allows.

        Args:
            runner: The test's runner.
            batch_idx: Number of the batch.
            data_batch: Not used.
            outputs: Data samples after prediction.

        Raises:
            DataError: An image cannot be read, or its sample does not fit it.
        """
        for sample in outputs or ():
            if len(self._drawn) >= self._share():
                return
            fields = sample.to_dict()
            records = records_of(fields)
            if not records:
                self._without_objects += 1
                continue
            drawn = self._draw(fields, records)
            self._drawn[drawn.path] = drawn

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the contact sheet and say what was drawn, on the main process."""
        parts = all_gather_object((list(self._drawn.values()), self._without_objects))
        if is_main_process():
            # A sampler may have given one image to two processes.
            drawn = {item.path: item for items, _ in parts for item in items}
            self._report(runner, [drawn[path] for path in sorted(drawn)], sum(count for _, count in parts))

    def _share(self) -> float:
        """Return how many images this process may draw."""
        if self.max_images is None:
            return math.inf
        whole, rest = divmod(self.max_images, get_world_size())
        return whole + (get_rank() < rest)

    def _draw(self, fields: dict[str, Any], records: list[ObjectRecord]) -> Drawn:
        """Write the picture of one image."""
        image_path = str(fields["img_path"])
        dataset = str(fields.get("dataset") or "images")
        identity = f"{dataset}\n{image_path}\n{fields.get('img_id')}\n{records[0].annotation_id}"
        short = hashlib.sha256(identity.encode()).hexdigest()[:8]
        path = self.out_dir / _file_name(dataset) / f"{_file_name(Path(image_path).stem)}-{short}.png"
        masks = [decode_mask(r.mask) for r in records if r.mask is not None and r.mask_area]
        overlaps = [record.iou for record in records if not math.isnan(record.iou)]
        iou = float(np.mean(overlaps)) if overlaps else math.nan
        name = f"{dataset} / {Path(image_path).stem}"
        points, labels, boxes = _prompts(fields.get("prompt_instances") or {})
        picture = draw_overlay(
            read_image(image_path),
            prediction=np.stack(masks) if masks else None,
            truth=np.stack([decode_mask(record.truth) for record in records]),
            points=points,
            point_labels=labels,
            boxes=boxes,
            score=float(np.mean([record.score for record in records])),
            title=f"{name}  " + ("both empty" if math.isnan(iou) else f"IoU {iou:.2f}"),
        )
        write_png(path, picture)
        return Drawn(str(path), name, iou, len(masks), len(records) - len(masks))

    def _report(self, runner: Runner, drawn: list[Drawn], without_objects: int) -> None:
        masks, empty = sum(item.masks for item in drawn), sum(item.empty for item in drawn)
        if self.sheet and drawn:
            self._write_sheet(drawn)
        if masks:
            runner.logger.info(
                f"Drew {masks} predicted masks on {len(drawn)} images in {self.out_dir} ({empty} masks were "
                f"empty, {without_objects} images had no objects and were left out)."
            )
        elif empty:
            runner.logger.error(
                f"Drew no predicted mask: all {empty} masks of {len(drawn)} images are empty or missing, so "
                f"only prompts and truth are in {self.out_dir}; check the weights and the mask threshold."
            )
        elif without_objects:
            runner.logger.error(
                f"Drew no predicted mask: the {without_objects} tested images have no annotated objects to "
                "be prompted with; check that the annotation file and its class names belong to them."
            )
        else:
            runner.logger.error(
                "Drew no predicted mask: the test gave no data samples; check that its dataset is not empty."
            )

    def _write_sheet(self, drawn: list[Drawn]) -> None:
        """Write the images of lowest, middle and highest IoU, one row each when there are enough."""
        scored = [item for item in drawn if not math.isnan(item.iou)]
        ranked = sorted(scored, key=lambda item: (item.iou, item.path))
        chosen = _extremes(ranked, _SHEET_COLUMNS) or [("", item) for item in drawn[:_SHEET_COLUMNS]]
        panels = [read_image(item.path) for _, item in chosen]
        captions = [f"{rank}  {item.name}".strip() for rank, item in chosen]
        write_png(self.out_dir / SHEET, contact_sheet(panels, _SHEET_COLUMNS, captions))


def _extremes(ranked: list[Drawn], count: int) -> list[tuple[str, Drawn]]:
    """Pick `count` items from the start, the middle and the end, none twice, with their rank's name."""
    if len(ranked) < 3 * count:
        return [(_rank_name(i, len(ranked)), item) for i, item in enumerate(ranked)]
    middle = (len(ranked) - count) // 2
    parts = {"worst": ranked[:count], "median": ranked[middle : middle + count], "best": ranked[-count:]}
    return [(name, item) for name, items in parts.items() for item in items]


def _rank_name(index: int, count: int) -> str:
    if index == 0 and count > 1:
        return "worst"
    return "best" if index == count - 1 else "median" if index == count // 2 else ""


def _prompts(prompts: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], Any]:
    """Join the objects' points (P, 2) and labels (P,), and return them with the boxes (N, 4) or None."""
    points = [_numbers(p).reshape(-1, 2) for p in prompts.get("points", ())]
    labels = [_numbers(label).reshape(-1) for label in prompts.get("point_labels", ())]
    if not labels:
        labels = [np.ones(len(p)) for p in points]
    boxes = prompts.get("boxes")
    return (
        np.concatenate(points) if points else np.zeros((0, 2)),
        np.concatenate(labels).astype(np.int64) if labels else np.zeros(0, dtype=np.int64),
        None if boxes is None else _numbers(boxes).reshape(-1, 4),
    )


def _numbers(values: Any) -> npt.NDArray[np.float64]:
    """Return float64 numbers of a tensor on any device, an array or a list."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().float().numpy()
    return np.asarray(values, dtype=np.float64)


def _file_name(text: str) -> str:
    """Return text as a part of a path: letters, digits, and `._-()`; the hash keeps names apart."""
    return "".join(c if c.isalnum() or c in "._-()" else "_" for c in text)[:80].strip(".") or "_"
