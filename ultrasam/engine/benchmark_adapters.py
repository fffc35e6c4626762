"""Training steps and peak memory of the ways to adapt SAM, against training all of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from ultrasam.adapters.options import ADAPTERS
from ultrasam.engine.benchmark_memory import new_process_peak, peak_of_steps, settings_of
from ultrasam.engine.benchmark_steps import build_optimizer, synthetic_batch
from ultrasam.engine.benchmark_timing import Row, Settings, rows_of, time_alternating

if TYPE_CHECKING:
    from ultrasam.models.detector import UltraSamDetector

# SAMUS works at another size, so its step compares with nothing here.
METHODS = ("full", "decoder", "lora", "med_sa")


def build_adapted(settings: Settings, method: str) -> UltraSamDetector:
    """Return the detector with random weights, of which ``method`` says what trains."""
    from ultrasam.engine.setup import register_all

    register_all()
    from ultrasam.models.detector import UltraSamDetector

    torch.manual_seed(settings.seed)
    detector = UltraSamDetector(
        arch=settings.arch,
        image_size=settings.image_size,
        method=method,
        # All options of the paper; an adapter needs none of them named.
        adapter={} if method in ADAPTERS else None,
    )
    return detector.to(settings.device).train()


def measure_adapters(settings: Settings) -> list[Row]:
    """Time a training step of each method, in turn, and measure its peak memory, each in a process of its own.

    The images have the first of the settings' numbers of objects.

    Raises:
        UltraSamError: a step failed, for want of memory for instance.
    """
    settings = replace(settings, objects=settings.objects[:1])
    peaks = {method: _peak_in_new_process(settings, method) for method in METHODS}
    steps: dict[str, Callable[[], object]] = {}
    for method in METHODS:
        detector = build_adapted(settings, method)
        batch = synthetic_batch(settings, settings.images, settings.objects[0], "train")
        steps[_case(settings, method)] = partial(detector.train_step, batch, build_optimizer(detector, settings))
    seconds = time_alternating(steps, settings.repeats, settings.device)
    first, *others = steps
    rows = rows_of("adapted step", seconds, dict.fromkeys(others, first))
    for method, peak in peaks.items():
        row = Row("adapted memory", _case(settings, method), peak_bytes=peak)
        if method != METHODS[0]:
            row.baseline, row.ratio = first, peak / peaks[METHODS[0]]
        rows.append(row)
    return rows


def main(arguments: list[str]) -> None:
    """Run the steps of the settings (JSON) and the method given, and print the peak as the last line."""
    settings = settings_of(arguments[0])
    sys.stdout.write(f"{peak_of_steps(build_adapted(settings, arguments[1]), settings)}\n")


def _case(settings: Settings, method: str) -> str:
    return f"{method}, {settings.images} images x {settings.objects[0]} objects {settings.precision}"


def _peak_in_new_process(settings: Settings, method: str) -> int:
    advice = "use fewer --images, fewer --objects or a smaller --image-size"
    return new_process_peak(__name__, settings, method, advice, method)


if __name__ == "__main__":
    main(sys.argv[1:])
