"""``ultrasam segment``: masks of everything in an image, without a prompt."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultrasam.cli.errors import about_file, complain, guarded
from ultrasam.errors import ConfigError, DataError, UltraSamError

if TYPE_CHECKING:
    from ultrasam.inference.automatic import AutomaticMasks


# Least predicted IoU and least stability. UltraSam-lite is less sure of a point, and its logits are flatter.
SAM_THRESHOLDS, LITE_THRESHOLDS = (0.88, 0.95), (0.6, 0.3)


def build_parser() -> argparse.ArgumentParser:
    """Return the options of the command; the thresholds are those of ``segment_anything``."""
    parser = argparse.ArgumentParser(
        prog="ultrasam segment",
        description="Segment everything in images: a grid of points is asked, and good masks that do not overlap are "
        "kept. Writes STEM_segments.png (numbers), STEM_segments_overlay.png and STEM_segments.json (COCO) a frame.",
    )
    parser.add_argument("scans", nargs="+", metavar="SCAN", help="files, folders or patterns such as 'scans/*.png'")
    parser.add_argument("--frame", type=int, default=0, metavar="N", help="frame of a cine or volume, from 0")
    parser.add_argument(
        "--weights", metavar="W", help="weight file or name (default: the model that comes with the package)"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: cuda where there is a GPU)")
    parser.add_argument("--out", default="segments", metavar="FOLDER", help="where results go (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist; else they are an error")
    group = parser.add_argument_group("what is a mask")
    group.add_argument(
        "--points-per-side", type=int, default=16, metavar="N",
        help="the grid; Segment Anything's 32 takes four times as long and finds smaller things (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--pred-iou-thresh", type=float, metavar="S", help="least predicted IoU (default: 0.88; UltraSam-lite: 0.6)"
    )
    group.add_argument(
        "--stability-score-thresh", type=float, metavar="S", help="least stability (default: 0.95; UltraSam-lite: 0.3)"
    )
    group.add_argument(
        "--box-nms-thresh",
        type=float,
        default=0.7,
        metavar="S",
        help="greatest IoU of two boxes (default: %(default)s)",
    )
    group.add_argument(
        "--crop-n-layers", type=int, default=0, metavar="N", help="further layers of crops (default: %(default)s)"
    )
    group.add_argument(
        "--min-mask-region-area",
        type=int,
        default=0,
        metavar="A",
        help="fill smaller holes and remove smaller islands, in pixels (default: %(default)s)",
    )
    group.add_argument(
        "--no-clip", action="store_true", help="let masks leave the field of view, where it was found wrongly"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Segment and write; return 0, or 2 where anything could not be done."""
    options = build_parser().parse_args(argv)
    return guarded(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from ultrasam.inference.automatic import AutomaticMasks
    from ultrasam.inference.model import UltraSam
    from ultrasam.io.scan import listed_scans

    scans = listed_scans(options.scans)
    targets = _targets([name for _, name in scans], options)
    model = UltraSam.from_checkpoint(options.weights, device=options.device)
    defaults = LITE_THRESHOLDS if model.card.get("name") == "ultrasam-lite" else SAM_THRESHOLDS
    for name, value in zip(("pred_iou_thresh", "stability_score_thresh"), defaults, strict=True):
        if getattr(options, name) is None:
            setattr(options, name, value)
    generator = AutomaticMasks(
        model,
        points_per_side=options.points_per_side,
        pred_iou_thresh=options.pred_iou_thresh,
        stability_score_thresh=options.stability_score_thresh,
        box_nms_thresh=options.box_nms_thresh,
        crop_n_layers=options.crop_n_layers,
        min_mask_region_area=options.min_mask_region_area,
        clip=not options.no_clip,
    )
    objects = failures = 0
    for (path, name), target in zip(scans, targets, strict=True):
        try:
            objects += _segment(generator, path, name, target, options.frame)
        except UltraSamError as error:
            complain(about_file(path, error))
            failures += 1
    missed = f", {failures} failed (see above)" if failures else ""
    if failures == len(scans):
        complain(f"nothing was written for {len(scans)} scans (see above)")
        return 2
    print(f"wrote {objects} masks of {len(scans) - failures} of {len(scans)} scans{missed} to {options.out}")
    return 2 if failures else 0


def _targets(names: Sequence[str], options: argparse.Namespace) -> list[Path]:
    """Return how the files of each scan begin.

    Raises:
        ConfigError: two scans have the same, or a file exists and may not be replaced.
    """
    from ultrasam.io.scan_base import stem_of

    targets = [Path(options.out) / Path(name).parent / stem_of(Path(name).name) for name in names]
    for row, target in enumerate(targets):
        if target in targets[:row]:
            raise ConfigError(
                f"two scans would be written as {target}: {names[targets.index(target)]} and {names[row]}; run them "
                "with different --out"
            )
        taken = [path for path in _files(target) if path.exists()]
        if taken and not options.overwrite:
            raise ConfigError(f"{taken[0]} exists; give --overwrite to replace it, or another folder with --out")
    return targets


def _files(target: Path) -> list[Path]:
    return [target.with_name(target.name + end) for end in ("_segments.png", "_segments_overlay.png", "_segments.json")]


def _segment(generator: AutomaticMasks, path: Path, name: str, target: Path, frame: int) -> int:
    """Segment one scan and write its files; return the number of masks."""
    import numpy as np

    from ultrasam.io.outputs import Answer, write_coco, write_label_png, write_overlay
    from ultrasam.io.scan import open_scan

    with open_scan(path) as scan:
        image, spacing = scan.read(frame), scan.spacing
    points = sum(len(grid) for grid in generator.grids[:1])
    slow = ", which can take a minute on a CPU" if points > 100 else ""
    print(f"{name}: asking {points} points{slow}", file=sys.stderr, flush=True)
    records, tally = generator.run(image)
    if not records:
        raise DataError(f"{name}: no mask was found: {tally.sentence()}; lower --pred-iou-thresh or the stability")
    masks = np.stack([record["segmentation"] for record in records])
    scores = [record["predicted_iou"] for record in records]
    labels, overlay, document = _files(target)
    write_label_png(labels, masks)
    write_overlay(overlay, image, masks, title=f"{Path(name).name}: {len(masks)} masks")
    asked = [
        {"points": record["point_coords"], "labels": [1], "stability_score": record["stability_score"]}
        for record in records
    ]
    answer = Answer(name, masks, scores, frame, spacing, prompts=asked)
    write_coco(document, [answer], _about(generator))
    print(f"{name}: {tally.sentence()}", flush=True)
    return len(masks)


def _about(generator: AutomaticMasks) -> dict[str, Any]:
    """Return what the JSON says of the run."""
    import ultrasam

    card = generator.model.card
    return {
        "description": "masks of a grid of points, not for diagnosis",
        "version": ultrasam.__version__,
        "model": str(card.get("name") or card.get("architecture")),
        "points_per_side": len(generator.grids[0]) ** 0.5,
        "pred_iou_thresh": generator.pred_iou_thresh,
        "stability_score_thresh": generator.stability_score_thresh,
        "box_nms_thresh": generator.box_nms_thresh,
    }
