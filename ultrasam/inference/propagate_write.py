"""What is written of objects that were followed: masks, a video, a label volume, and the area over time."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ultrasam.errors import ConfigError, DataError
from ultrasam.inference.propagate import FrameResult
from ultrasam.io.files import write_atomic

if TYPE_CHECKING:
    from ultrasam.io.scan_base import Scan

PARTS = ("masks", "video", "volume", "curve")
# Frames a second of a video of slices, or of a cine that does not say.
RATE = 20.0
COLUMNS = ("frame", "time_s", "object", "area_px", "area_mm2", "score", "lost")


def write_propagation(
    results: Iterable[FrameResult],
    scan: Scan,
    out: str | Path,
    *,
    stem: str | None = None,
    parts: Sequence[str] = PARTS,
    info: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write followed objects, each file whole or not at all.

    * masks: ``STEM_masks.json``, COCO, with a mask for every object and frame;
    * video: ``STEM_overlay.mp4``, every frame with the outlines;
    * volume: ``STEM_labels.nii.gz`` (or the suffix of the scan), on the grid of the scan;
    * curve: ``STEM_area.csv``, ``STEM_area.png`` and ``STEM_area.svg``, the area over time.

    Args:
        results: of ``propagate``; taken one after the other, only their run lengths are kept.
        scan: the scan that they are of.
        out: folder; it is created.
        stem: how the files begin; by default as the scan is called.
        parts: what is written.
        info: what the JSON says under "info".

    Returns:
        the files.

    Raises:
        ConfigError: an unknown part, or no results.
        DataError: the scan cannot be read, or a file not be written.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise ConfigError(f"parts of a propagation are {', '.join(PARTS)}, found {unknown[0]!r}")
    frames = sorted(results, key=lambda result: result.frame)
    if not frames:
        raise ConfigError(f"there is no result of {scan.name} to write; pass what propagate gives")
    base = Path(out) / (stem or scan.stem)
    written = []
    if "masks" in parts:
        from ultrasam.io.outputs import write_coco

        written.append(base.with_name(f"{base.name}_masks.json"))
        write_coco(written[-1], _answers(frames, scan), info)
    if "video" in parts:
        written.append(base.with_name(f"{base.name}_overlay.mp4"))
        write_video(written[-1], frames, scan)
    if "volume" in parts:
        from ultrasam.io.outputs_volume import volume_suffix, write_label_volume

        written.append(base.with_name(f"{base.name}_labels{volume_suffix(scan)}"))
        write_label_volume(written[-1], LazyMasks(frames, scan.size), scan)
    if "curve" in parts:
        written += _write_curve(base, frames, scan)
    return written


class LazyMasks(Mapping[int, NDArray[np.bool_]]):
    """Masks (N, H, W) by frame, decoded each time they are looked at.

    Args:
        frames: results.
        size: (height, width) of the scan.
    """

    def __init__(self, frames: Sequence[FrameResult], size: tuple[int, int]) -> None:
        self._frames = {result.frame: result for result in frames}
        self._size = size

    def __getitem__(self, frame: int) -> NDArray[np.bool_]:
        return self._frames[frame].masks(*self._size)

    def __iter__(self) -> Iterator[int]:
        return iter(self._frames)

    def __len__(self) -> int:
        return len(self._frames)


def _answers(frames: Sequence[FrameResult], scan: Scan) -> Iterator[Any]:
    """Yield the masks of each frame for the COCO document, one frame at a time."""
    from ultrasam.io.outputs import Answer

    for result in frames:
        scores = np.nan_to_num(result.scores)
        yield Answer(scan.name, result.masks(*scan.size), scores, result.frame, scan.spacing)


def write_video(path: str | Path, frames: Sequence[FrameResult], scan: Scan) -> None:
    """Write every frame of a scan with the outlines of its masks as MP4 (H.264).

    Args:
        path: the file.
        frames: results, at most one a frame; frames without one are shown as they are.
        scan: the scan.

    Raises:
        DataError: the scan cannot be read, or the file not be written.
    """
    import av

    from ultrasam.visualization.overlay import draw_overlay

    found = {result.frame: result for result in frames}
    buffer = io.BytesIO()
    rate = scan.rate or RATE
    try:
        with av.open(buffer, "w", format="mp4") as container:
            # x264 comes with PyAV's wheels; a build without it has the older MPEG-4.
            codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
            stream: Any = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1000))
            stream.pix_fmt = "yuv420p"
            for number, image in enumerate(scan.iterate()):
                result = found.get(number)
                masks = None if result is None else result.masks(*scan.size)
                if masks is not None and not masks.any():
                    masks = None
                drawn = _even(draw_overlay(image, prediction=masks, title=_title(number, scan, result)))
                if number == 0:
                    stream.height, stream.width = drawn.shape[:2]
                container.mux(stream.encode(av.VideoFrame.from_ndarray(drawn, format="rgb24")))
            container.mux(stream.encode())
    except av.error.FFmpegError as error:
        raise DataError(f"{path} cannot be made as a video ({error.strerror}); leave the video out") from error
    write_atomic(path, buffer.getvalue())


def _title(number: int, scan: Scan, result: FrameResult | None) -> str:
    """Return the line above a frame."""
    text = f"{number} of {scan.frames - 1}"
    if result is not None and result.lost:
        text += "  lost: " + ", ".join(f"object {row + 1}" for row in sorted(result.lost))
    return text


def _even(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat the last row and column where their number is odd: the codec halves colours."""
    height, width = image.shape[:2]
    return np.ascontiguousarray(np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))


def _write_curve(base: Path, frames: Sequence[FrameResult], scan: Scan) -> list[Path]:
    """Write the area of every object in every frame as a table and as pictures."""
    pixel = None if scan.spacing is None else scan.spacing[0] * scan.spacing[1]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for result in frames:
        time = f"{result.frame / scan.rate:.4f}" if scan.rate else ""
        for row, rle in enumerate(result.rles):
            if rle is None and row not in result.lost:
                continue
            area = int(result.areas[row])
            size = "" if pixel is None or rle is None else f"{area * pixel:.3f}"
            score = "" if rle is None else f"{float(result.scores[row]):.4f}"
            shown = "" if rle is None else area
            table.writerow([result.frame, time, row + 1, shown, size, score, result.lost.get(row, "")])
    paths = [base.with_name(f"{base.name}_area{suffix}") for suffix in (".csv", ".png", ".svg")]
    write_atomic(paths[0], text.getvalue().encode("utf-8"))
    pictures = draw_curve(frames, scan)
    for path in paths[1:]:
        write_atomic(path, pictures[path.suffix[1:]])
    return paths


def draw_curve(frames: Sequence[FrameResult], scan: Scan) -> dict[str, bytes]:
    """Return the area over time, relative to the largest of each object, as ``png`` and ``svg``.

    Args:
        frames: results in the order of the frames.
        scan: the scan.
    """
    from ultrasam.visualization.lines import LineChart, Series, draw_line_charts

    pixel = None if scan.spacing is None else scan.spacing[0] * scan.spacing[1]
    places = [result.frame / scan.rate if scan.rate else float(result.frame) for result in frames]
    none = [float("nan")] * len(frames)
    charts = []
    for row in range(len(frames[0].rles)):
        areas = np.array([float(result.areas[row]) for result in frames])
        largest = areas.max()
        values = [area / largest if area else float("nan") for area in areas]
        size = f"{largest:.0f} pixels" if pixel is None else f"{largest * pixel:.1f} mm²"
        title = f"Object {row + 1}: 1.0 is {size}"
        label = "Time in seconds" if scan.rate else "Frame"
        charts.append(LineChart(title, label, _ticks(places), [Series(title, places, values, none, none)]))
    note = f"frames {frames[0].frame} to {frames[-1].frame} of 0 to {scan.frames - 1}"
    return draw_line_charts(charts, f"Area of {scan.name}", note, "Area / largest")


def _ticks(places: Sequence[float]) -> list[tuple[float, str]]:
    """Return about six places of an axis with their labels."""
    if places[0] == places[-1]:
        return [(places[0], f"{places[0]:g}")]
    return [(float(place), f"{place:.3g}") for place in np.linspace(places[0], places[-1], 6)]
