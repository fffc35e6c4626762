"""Peak memory of a training step, each in a process of its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ultrasam.engine.benchmark_steps import (
    build_detector,
    build_optimizer,
    synthetic_batch,
    training_case,
)
from ultrasam.engine.benchmark_timing import Row, Settings
from ultrasam.errors import UltraSamError

if TYPE_CHECKING:
    from ultrasam.models.detector import UltraSamDetector

# The optimizer's state exists from the end of the first step on, so the second is the larger.
_STEPS = 2


def measure_memory(settings: Settings) -> list[Row]:
    """Measure the peak memory of a training step for every number of objects per image.

    On a CPU that is the resident memory of the process with everything loaded, on a GPU what PyTorch
    allocated there.

    Raises:
        UltraSamError: a step failed, for want of memory for instance.
    """
    peaks = [_peak_in_new_process(replace(settings, objects=(count,))) for count in settings.objects]
    rows: list[Row] = []
    for count, peak in zip(settings.objects, peaks, strict=True):
        row = Row("peak memory", training_case(settings, count), peak_bytes=peak)
        if rows:
            row.baseline, row.ratio = rows[0].case, peak / peaks[0]
        rows.append(row)
    return rows


def peak_resident_bytes() -> int:
    """Return the largest resident memory of this process so far.

    Linux lets a new process inherit its parent's ``ru_maxrss``, so its own high-water mark is preferred.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_of_steps(detector: UltraSamDetector, settings: Settings) -> int:
    """Run training steps of a detector in this process and return its peak memory in bytes."""
    optimizer = build_optimizer(detector, settings)
    batch = synthetic_batch(settings, settings.images, settings.objects[0], "train")
    for _ in range(_STEPS):
        detector.train_step(batch, optimizer)
    if torch.device(settings.device).type == "cuda":
        return torch.cuda.max_memory_allocated(settings.device)
    return peak_resident_bytes()


def settings_of(text: str) -> Settings:
    """Return the settings that ``new_process_peak`` wrote as JSON."""
    values = json.loads(text)
    return Settings(**{**values, "objects": tuple(values["objects"])})


def main(arguments: list[str]) -> None:
    """Run the steps of the settings given as JSON and print the peak as the last line of the output."""
    settings = settings_of(arguments[0])
    sys.stdout.write(f"{peak_of_steps(build_detector(settings).train(), settings)}\n")


def new_process_peak(module: str, settings: Settings, case: str, advice: str, *further: str) -> int:
    """Run a module with settings in a process of its own and return the peak memory that it prints last, in bytes.

    Args:
        module: gets the settings as JSON, see ``settings_of``.
        settings: of the step.
        case: what the step is, for the message.
        advice: what to do when it fails.
        further: arguments of the module after the settings.

    Raises:
        UltraSamError: the process failed.
    """
    command = [sys.executable, "-m", module, json.dumps(asdict(settings)), *further]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        reason = (finished.stderr.strip().splitlines() or ["no message"])[-1]
        raise UltraSamError(
            f"the training step of {case} ended with exit status {finished.returncode} ({reason}); {advice}"
        )
    return int(finished.stdout.strip().splitlines()[-1])


def _peak_in_new_process(settings: Settings) -> int:
    """Return the peak memory in bytes of the settings' training step."""
    case = training_case(settings, settings.objects[0])
    return new_process_peak(__name__, settings, case, "use fewer --objects or a smaller --image-size")


if __name__ == "__main__":
    main(sys.argv[1:])
