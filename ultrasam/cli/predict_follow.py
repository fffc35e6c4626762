"""``ultrasam predict --propagate``: objects followed through a cine loop or volume, and what is written of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ultrasam.cli.predict_results import Results, prompts_of
from ultrasam.errors import DataError, PromptError
from ultrasam.io.prompts_file import Wanted
from ultrasam.io.scan_base import Scan

if TYPE_CHECKING:
    from ultrasam.inference.model import UltraSam
    from ultrasam.inference.propagate import FrameResult

# What of a propagation stands for a format.
_PARTS = {"png": "video", "coco": "masks", "csv": "curve", "volume": "volume"}


def follow(
    model: UltraSam,
    scan: Scan,
    stem: str,
    wanted: Mapping[int, Sequence[Wanted]],
    results: Results,
    *,
    direction: str,
    clip: bool,
) -> None:
    """Follow the objects of one frame and write video, masks, label volume and area over time.

    Args:
        model: the network.
        scan: with several frames.
        stem: how the files begin, seen from the results' folder.
        wanted: objects of one frame.
        results: where and what is written.
        direction: both, forward or backward.
        clip: whether masks stay in the field of view.

    Raises:
        DataError: the scan has one frame only.
        PromptError: prompts in several frames, or one that does not fit.
        ConfigError: a file exists and may not be overwritten.
    """
    from ultrasam.inference.propagate import describe, propagate
    from ultrasam.inference.propagate_write import LazyMasks, write_propagation

    if scan.frames < 2:
        raise DataError(f"{scan.path or scan.name} has one frame, so nothing can be followed; leave out --propagate")
    if len(wanted) != 1:
        raise PromptError(f"{scan.path or scan.name}: objects are followed from one frame, found prompts in the frames "
                          f"{', '.join(map(str, sorted(wanted)[:5]))}")  # fmt: skip
    ((frame, objects),) = wanted.items()
    parts = [part for kind, part in _PARTS.items() if kind in results.formats]
    base = results.folder / stem
    results.require_source(scan)
    results.require_free([*_files(base, scan, parts), *_seg(base, results)])
    names = [item.name for item in objects]
    found: list[FrameResult] = []
    for answer in propagate(model, scan, frame, prompts_of(objects), direction=direction, clip=clip):
        found.append(answer)
        _show(len(found), scan.frames)
    for line in describe(found):
        print(f"{scan.name}: {line}")
    results.masks += sum(rle is not None for answer in found for rle in answer.rles)
    results.written += write_propagation(found, scan, base.parent, stem=base.name, parts=parts, info=results.info)
    if "seg" in results.formats:
        results.write_seg(stem, scan, LazyMasks(found, scan.size), names)


def _files(base: Path, scan: Scan, parts: Sequence[str]) -> list[Path]:
    """Return the files that will be written."""
    from ultrasam.io.outputs_volume import volume_suffix

    endings = {"video": ["_overlay.mp4"], "masks": ["_masks.json"], "volume": [f"_labels{volume_suffix(scan)}"],
               "curve": ["_area.csv", "_area.png", "_area.svg"]}  # fmt: skip
    return [base.with_name(base.name + ending) for part in parts for ending in endings[part]]


def _seg(base: Path, results: Results) -> list[Path]:
    return [base.with_name(f"{base.name}_seg.dcm")] if "seg" in results.formats else []


def _show(done: int, frames: int) -> None:
    """Print how far it is, about every 50 frames."""
    if done % 50 == 0:
        print(f"{done} of up to {frames} frames", flush=True)
