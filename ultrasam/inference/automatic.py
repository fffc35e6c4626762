"""Masks of everything in an image: a grid of points, then score, stability and overlap decide what stays.

Behaviour and defaults are those of ``segment_anything``'s ``SamAutomaticMaskGenerator``; on equal weights the records
are equal. It is faster because what does not depend on the point is computed once an image, and because masks are
enlarged only where they are and only after their score was good enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ultrasam.errors import ConfigError
from ultrasam.geometry.rle import encode_mask
from ultrasam.inference.automatic_geometry import (
    crop_boxes,
    inclusive_box,
    point_grid,
    suppress,
    touches_crop,
    uncompressed_rle,
    without_small_regions,
)
from ultrasam.inference.automatic_paint import Painted, Painter
from ultrasam.inference.decoding import Decoder
from ultrasam.inference.field import find_field
from ultrasam.inference.model import UltraSam, check_image
from ultrasam.modeling.prompt_encoder import NOT_A_POINT, POSITIVE, Prompts

OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")


@dataclass
class Tally:
    """Where candidates went, to say why there are few or none.

    Attributes:
        points: asked, those outside of the field of view left out.
        candidates: masks that the network gave for them.
        best_iou: the highest predicted IoU among them.
        scored: left after the predicted IoU.
        stable: left after the stability.
        whole: left after those cut by a crop's border.
        kept: left after overlapping ones were removed.
    """

    points: int = 0
    candidates: int = 0
    best_iou: float = float("-inf")
    scored: int = 0
    stable: int = 0
    whole: int = 0
    kept: int = 0

    def sentence(self) -> str:
        """Say all that in one line."""
        return (
            f"{self.points} points gave {self.candidates} masks: {self.scored} above the predicted IoU (highest "
            f"{self.best_iou:.2f}), {self.stable} of them stable, {self.kept} left without overlaps"
        )


@dataclass
class _Candidates:
    """What is left of one crop or of several, in order; all lists are equally long.

    Attributes:
        painted: masks in pixels of their crops.
        iou: predicted.
        points: (x, y) in pixels of the image.
        boxes: x1, y1, x2, y2 in pixels of the image, both ends inside.
        crops: half-open x1, y1, x2, y2.
    """

    painted: list[Painted] = field(default_factory=list)
    iou: list[float] = field(default_factory=list)
    points: list[tuple[float, float]] = field(default_factory=list)
    boxes: list[NDArray[np.int64]] = field(default_factory=list)
    crops: list[tuple[int, int, int, int]] = field(default_factory=list)

    def take(self, rows: Sequence[int]) -> _Candidates:
        """Return some of them in a given order."""
        columns = (self.painted, self.iou, self.points, self.boxes, self.crops)
        return _Candidates(*([column[row] for row in rows] for column in columns))  # type: ignore[arg-type, index]

    def extend(self, other: _Candidates) -> None:
        """Append others."""
        for name in ("painted", "iou", "points", "boxes", "crops"):
            getattr(self, name).extend(getattr(other, name))


class AutomaticMasks:
    """Finds masks without a prompt.

    Weights whose decoder has a single mask (LiteMedSAM, MedSAM) give one candidate a point, weights with a refining
    pass give three of that pass, all others SAM's three.

    Args:
        model: the network.
        points_per_side: points along one side of the grid; None with ``point_grids``.
        points_per_batch: points decoded at a time.
        pred_iou_thresh: least predicted IoU (above it), 0 for no limit.
        stability_score_thresh: least stability, 0 for no limit: the IoU of the masks at the two thresholds below.
        stability_score_offset: these thresholds lie so far from 0, in logits.
        box_nms_thresh: of masks whose boxes have a greater IoU the one with the best predicted IoU stays.
        crop_n_layers: further layers of crops; layer i has 2^i crops along each side, each encoded by itself.
        crop_nms_thresh: the same between crops; masks of small crops win.
        crop_overlap_ratio: overlap of crops of the first layer over the image's short side.
        crop_n_points_downscale_factor: the grid of layer i has ``points_per_side`` divided by this to the i.
        point_grids: instead of ``points_per_side``: for each layer (P, 2) x, y from 0 to 1.
        min_mask_region_area: fill smaller holes and remove smaller islands, in pixels; 0 leaves all.
        output_mode: masks as "binary_mask" (H, W) bool, "uncompressed_rle" or "coco_rle".
        clip: look for the field of view; no point and no mask lies outside of it. False equals ``segment_anything``.

    Raises:
        ConfigError: an option out of its range.
    """

    def __init__(
        self,
        model: UltraSam,
        points_per_side: int | None = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.88,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        point_grids: Sequence[NDArray[np.floating]] | None = None,
        min_mask_region_area: int = 0,
        output_mode: str = "binary_mask",
        clip: bool = True,
    ) -> None:
        if (points_per_side is None) == (point_grids is None):
            raise ConfigError("automatic masks need points_per_side or point_grids, exactly one of them")
        _at_least("points_per_side", points_per_side if points_per_side is not None else 1, 1)
        _at_least("points_per_batch", points_per_batch, 1)
        _at_least("crop_n_layers", crop_n_layers, 0)
        _at_least("crop_n_points_downscale_factor", crop_n_points_downscale_factor, 1)
        _at_least("stability_score_offset", stability_score_offset, 0)
        _at_least("min_mask_region_area", min_mask_region_area, 0)
        if output_mode not in OUTPUT_MODES:
            raise ConfigError(f"output_mode must be one of {', '.join(OUTPUT_MODES)}, found {output_mode!r}")
        if not 0 <= crop_overlap_ratio < 1:
            raise ConfigError(f"crop_overlap_ratio must lie from 0 to below 1, found {crop_overlap_ratio:g}")
        self.grids = _grids(points_per_side, point_grids, crop_n_layers, crop_n_points_downscale_factor)
        self.model = model
        self.points_per_batch = points_per_batch
        self.pred_iou_thresh = pred_iou_thresh
        self.stability_score_thresh = stability_score_thresh
        self.stability_score_offset = stability_score_offset
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers = crop_n_layers
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.min_mask_region_area = min_mask_region_area
        self.output_mode = output_mode
        self.clip = clip

    def generate(self, image: NDArray[np.uint8]) -> list[dict[str, Any]]:
        """Return a record of every mask.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            dictionaries of ``segmentation`` (see ``output_mode``), ``area`` in pixels, ``bbox`` and ``crop_box``
            [x, y, width, height] (of ``bbox`` the width is the last column minus the first, as in
            ``segment_anything``), ``predicted_iou``, ``stability_score``, ``point_coords`` [[x, y]].
        """
        return self.run(image)[0]

    @torch.no_grad()
    def run(self, image: NDArray[np.uint8]) -> tuple[list[dict[str, Any]], Tally]:
        """As ``generate``, and what became of all candidates."""
        image = check_image(image)
        size = image.shape[0], image.shape[1]
        inside = find_field(image) if self.clip else None
        tally, found = Tally(), _Candidates()
        crops = crop_boxes(*size, self.crop_n_layers, self.crop_overlap_ratio)
        for layer, crop in crops:
            found.extend(self._in_crop(image, crop, self.grids[layer], inside, tally))
        if len(crops) > 1:
            areas = np.array([(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in found.crops], np.float32)
            found = found.take(suppress(_rows(found.boxes), 1 / areas, self.crop_nms_thresh))
        records = self._records(found, size)
        tally.kept = len(records)
        return records, tally

    def _in_crop(
        self,
        image: NDArray[np.uint8],
        crop: tuple[int, int, int, int],
        grid: NDArray[np.float64],
        inside: NDArray[np.bool_] | None,
        tally: Tally,
    ) -> _Candidates:
        """Return the candidates of one crop (half-open box) that are good enough and do not overlap."""
        x1, y1, x2, y2 = crop
        points = grid * (x2 - x1, y2 - y1)
        field_here = None if inside is None else inside[y1:y2, x1:x2]
        if field_here is not None:
            points = points[field_here[points[:, 1].astype(int), points[:, 0].astype(int)]]
        found = _Candidates()
        if not len(points):
            return found
        embedding = self.model.encode([image[y1:y2, x1:x2]])[0]
        decoder = Decoder(self.model.sam, embedding.features)
        painter = Painter(embedding.transform, self.stability_score_offset, field_here)
        for start in range(0, len(points), self.points_per_batch):
            part = points[start : start + self.points_per_batch]
            coords = embedding.transform.points(part).astype(np.float32)
            logits, iou = self._decode(decoder, torch.from_numpy(coords).to(self.model.device))
            self._add(found, logits, iou, part, painter, crop, (image.shape[0], image.shape[1]), tally)
        keep = suppress(_rows(found.boxes), np.array(found.iou, np.float32), self.box_nms_thresh)
        return found.take(keep)

    def _decode(self, decoder: Decoder, coords: Tensor) -> tuple[Tensor, Tensor]:
        """Return all masks (N, M, h, w) and predicted IoU (N, M) of the last pass for points (N, 2) of the square."""
        count = len(coords)
        labels = torch.tensor([[POSITIVE, NOT_A_POINT]], device=coords.device).expand(count, -1)
        tokens = torch.stack([coords, torch.zeros_like(coords)], dim=1)
        index = torch.zeros(count, dtype=torch.long, device=coords.device)
        prompts = Prompts(tokens, labels, index)
        # SAM's own convention for one point: all of its ambiguous masks.
        passes = self.model.passes or ("multi",)
        for kind in passes[:-1]:
            logits, _ = decoder.decode(prompts, kind == "multi", best=True)
            prompts = Prompts(tokens, labels, index, logits if self.model.mask_prompt else None)
        logits, iou = decoder.decode(prompts, passes[-1] == "multi", best=False)
        return logits.float(), iou.float()

    def _add(
        self,
        found: _Candidates,
        logits: Tensor,
        iou: Tensor,
        points: NDArray[np.float64],
        painter: Painter,
        crop: tuple[int, int, int, int],
        size: tuple[int, int],
        tally: Tally,
    ) -> None:
        """Append the candidates of some points that are good enough."""
        masks = iou.shape[1]
        flat = iou.flatten()
        rows = torch.nonzero(flat > self.pred_iou_thresh)[:, 0] if self.pred_iou_thresh > 0 else torch.arange(len(flat))
        tally.points += len(points)
        tally.candidates += len(flat)
        tally.best_iou = max(tally.best_iou, float(flat.max()))
        tally.scored += len(rows)
        for start in range(0, len(rows), 32):
            some = rows[start : start + 32]
            painted = painter.paint(logits.flatten(0, 1)[some], self.stability_score_thresh)
            for row, one in zip(some.tolist(), painted, strict=True):
                if one is None:
                    continue
                tally.stable += 1
                box = one.box + np.array([crop[0], crop[1], crop[0], crop[1]])
                if touches_crop(box, crop, *size):
                    continue
                tally.whole += 1
                x, y = points[row // masks].tolist()
                found.painted.append(one)
                found.iou.append(float(flat[row]))
                found.points.append((x + crop[0], y + crop[1]))
                found.boxes.append(box)
                found.crops.append(crop)

    def _records(self, found: _Candidates, size: tuple[int, int]) -> list[dict[str, Any]]:
        """Make the records, after small regions are gone where that is asked for."""
        masks = [one.mask(*size, (crop[0], crop[1])) for one, crop in zip(found.painted, found.crops, strict=True)]
        if self.min_mask_region_area > 0 and masks:
            cleaned = [without_small_regions(mask, self.min_mask_region_area) for mask in masks]
            boxes = _rows([inclusive_box(mask) for mask, _ in cleaned])
            # Masks that needed no change win.
            scores = np.array([float(not changed) for _, changed in cleaned])
            keep = suppress(boxes, scores, max(self.box_nms_thresh, self.crop_nms_thresh))
            found, masks = found.take(keep), [cleaned[row][0] for row in keep]
            found.boxes = [boxes[row] for row in keep]
        return [self._record(found, row, mask) for row, mask in enumerate(masks)]

    def _record(self, found: _Candidates, row: int, mask: NDArray[np.bool_]) -> dict[str, Any]:
        """Make one record."""
        segmentation: Any = mask
        if self.output_mode != "binary_mask":
            segmentation = encode_mask(mask) if self.output_mode == "coco_rle" else uncompressed_rle(mask)
        (x1, y1, x2, y2), crop = found.boxes[row].tolist(), found.crops[row]
        return {
            "segmentation": segmentation,
            "area": int(mask.sum()),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "predicted_iou": found.iou[row],
            "point_coords": [list(found.points[row])],
            "stability_score": found.painted[row].stability,
            "crop_box": [crop[0], crop[1], crop[2] - crop[0], crop[3] - crop[1]],
        }


def _rows(boxes: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.array(boxes, np.int64).reshape(-1, 4)


def _at_least(name: str, value: float, lowest: float) -> None:
    if not value >= lowest:
        raise ConfigError(f"{name} must be at least {lowest:g}, found {value:g}")


def _grids(
    per_side: int | None, grids: Sequence[NDArray[np.floating]] | None, layers: int, factor: int
) -> list[NDArray[np.float64]]:
    """Return the points (P, 2) of every layer, 0 to 1.

    Raises:
        ConfigError: a layer has no grid, or the grid no point.
    """
    if grids is None:
        assert per_side is not None
        sides = [int(per_side / factor**layer) for layer in range(layers + 1)]
        if min(sides) < 1:
            raise ConfigError(
                f"points_per_side {per_side} divided by {factor} for each of {layers} layers of crops leaves no point; "
                "take more points or fewer layers"
            )
        return [point_grid(side) for side in sides]
    given = [np.asarray(grid, np.float64) for grid in grids]
    if len(given) < layers + 1:
        raise ConfigError(f"point_grids must have a grid for each of {layers + 1} layers, found {len(given)}")
    for grid in given:
        if grid.ndim != 2 or grid.shape[1] != 2 or not len(grid) or not ((grid >= 0) & (grid < 1)).all():
            raise ConfigError("a point grid has the shape (points, 2), x then y, from 0 to below 1")
    return given
