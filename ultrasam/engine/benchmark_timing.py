"""What all benchmarks share: settings, timing of alternating cases, and one row of the result."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from ultrasam.errors import ConfigError

# Name on the command line and in the table, and the type of autocast if any.
PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Settings:
    """What to measure on.

    Attributes:
        arch: architecture, a key of ``ultrasam.modeling.build.ARCHITECTURES``.
        image_size: side of the network's square in pixels.
        repeats: timed runs of every case, after one that does not count.
        device: "cpu", "cuda" or "cuda:1".
        objects: objects per image of the training steps, one case each.
        images: images of a training step.
        precision: of training and test steps, a key of ``PRECISIONS``.
        seed: of weights and images.
    """

    arch: str = "vit_b"
    image_size: int = 1024
    repeats: int = 3
    device: str = "cpu"
    objects: tuple[int, ...] = (1, 4, 16)
    images: int = 2
    precision: str = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, values in (
            ("repeats", [self.repeats]),
            ("images", [self.images]),
            ("objects", self.objects),
        ):
            if min(values, default=0) < 1:
                raise ConfigError(f"{name} is {values}, expected numbers of at least 1")
        if self.image_size < 16 or self.image_size % 16:
            raise ConfigError(f"image_size is {self.image_size}, expected a multiple of 16 (one patch)")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision is {self.precision!r}, expected one of {', '.join(PRECISIONS)}")
        if torch.device(self.device).type == "cuda" and not torch.cuda.is_available():
            raise ConfigError(f"device is {self.device!r} but PyTorch finds no GPU; use --device cpu")


@dataclass
class Row:
    """One line of the result.

    Attributes:
        what: the measurement that it belongs to.
        case: what was run.
        seconds: median of ``runs``; None where memory was measured.
        runs: every timed run in seconds.
        baseline: case that ``ratio`` and ``difference`` compare with, None for the baseline itself.
        ratio: this case's median over the baseline's.
        difference: largest absolute difference of the outputs from the baseline's.
        peak_bytes: largest memory use; None where time was measured.
    """

    what: str
    case: str
    seconds: float | None = None
    runs: list[float] = field(default_factory=list)
    baseline: str | None = None
    ratio: float | None = None
    difference: float | None = None
    peak_bytes: int | None = None


def time_alternating(
    cases: dict[str, Callable[[], object]], repeats: int, device: str
) -> dict[str, list[float]]:
    """Run the cases in turn, so that a machine that slows down or is shared slows all of them alike.

    Args:
        cases: what to run, by name.
        repeats: rounds that are timed, after one round that is not.
        device: device that the cases compute on; a GPU is waited for.

    Returns:
        Seconds of every timed run, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for round_number in range(repeats + 1):
        for name, run in cases.items():
            _wait_for(device)
            start = time.perf_counter()
            run()
            _wait_for(device)
            if round_number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def rows_of(what: str, seconds: dict[str, list[float]], baselines: dict[str, str]) -> list[Row]:
    """Return a row per case.

    Args:
        what: the measurement's name.
        seconds: runs by case.
        baselines: for the cases that have one, the case to compare with.
    """
    medians = {case: statistics.median(runs) for case, runs in seconds.items()}
    rows = []
    for case, runs in seconds.items():
        baseline = baselines.get(case)
        ratio = None if baseline is None else medians[case] / medians[baseline]
        rows.append(Row(what, case, medians[case], list(runs), baseline, ratio))
    return rows


def format_table(rows: Sequence[Row]) -> str:
    """Lay out the rows as text with aligned columns."""
    head = ("measurement", "case", "median", "fastest", "ratio", "of", "max |diff|", "peak memory")
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    left = {0, 1, 5}
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    """Return a row's texts in the order of the table's head."""
    return (
        row.what,
        row.case,
        "" if row.seconds is None else f"{row.seconds:.4g} s",
        f"{min(row.runs):.4g} s" if row.runs else "",
        "" if row.ratio is None else f"{row.ratio:.3f}",
        row.baseline or "",
        "" if row.difference is None else f"{row.difference:.2e}",
        "" if row.peak_bytes is None else f"{row.peak_bytes / 2**30:.2f} GiB",
    )


def _wait_for(device: str) -> None:
    """Wait until a GPU has finished what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
