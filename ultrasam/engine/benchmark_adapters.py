"""Training steps and peak memory of the ways to adapt SAM, against training all of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from ultrasam.adapters.options import ADAPTERS
from ultrasam.engine.benchmark_memory import peak_resident_bytes
from ultrasam.engine.benchmark_steps import build_optimizer, synthetic_batch
from ultrasam.engine.benchmark_timing import Row, Settings, rows_of, time_alternating
from ultrasam.errors import UltraSamError

if TYPE_CHECKING:
    from ultrasam.models.detector import UltraSamDetector

# SAMUS works at another size, so its step compares with nothing here.
METHODS = ("full", "decoder", "lora", "med_sa")
# The optimizer's state exists from the end of the first step on, so the second is the larger.
_STEPS = 2


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


def run_steps(settings: Settings, method: str) -> int:
    """Run training steps in this process and return its peak memory in bytes."""
    detector = build_adapted(settings, method)
    optimizer = build_optimizer(detector, settings)
    batch = synthetic_batch(settings, settings.images, settings.objects[0], "train")
    for _ in range(_STEPS):
        detector.train_step(batch, optimizer)
    if torch.device(settings.device).type == "cuda":
        return torch.cuda.max_memory_allocated(settings.device)
    return peak_resident_bytes()


def main(arguments: list[str]) -> None:
    """Run the steps of the settings (JSON) and the method given, and print the peak as the last line."""
    values = json.loads(arguments[0])
    settings = Settings(**{**values, "objects": tuple(values["objects"])})
    sys.stdout.write(f"{run_steps(settings, arguments[1])}\n")


def _case(settings: Settings, method: str) -> str:
    return f"{method}, {settings.images} images x {settings.objects[0]} objects {settings.precision}"


def _peak_in_new_process(settings: Settings, method: str) -> int:
    command = [sys.executable, "-m", __name__, json.dumps(asdict(settings)), method]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        reason = (finished.stderr.strip().splitlines() or ["no message"])[-1]
        raise UltraSamError(
            f"the training step of {method} ended with exit status {finished.returncode} ({reason}); "
            "use fewer --images, fewer --objects or a smaller --image-size"
        )
    return int(finished.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main(sys.argv[1:])
