"""The command of the benchmarks: what to measure, the table on the screen, the numbers in a file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch

from ultrasam.engine.benchmark_adapters import measure_adapters
from ultrasam.engine.benchmark_encoder import measure_encoder
from ultrasam.engine.benchmark_memory import measure_memory
from ultrasam.engine.benchmark_steps import measure_test, measure_training
from ultrasam.engine.benchmark_timing import PRECISIONS, Row, Settings, format_table
from ultrasam.errors import UltraSamError
from ultrasam.io.files import write_atomic
from ultrasam.modeling.build import ARCHITECTURES

MEASUREMENTS: dict[str, Callable[[Settings], list[Row]]] = {
    "encoder": measure_encoder,
    "train": measure_training,
    "test": measure_test,
    "memory": measure_memory,
    "adapters": measure_adapters,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, and write JSON where asked.

    Args:
        arguments: of the command line; None for those of the process.

    Returns:
        Exit status: 0, or 2 after an error that was printed as one sentence.
    """
    options = _parser().parse_args(arguments)
    try:
        settings = Settings(
            arch=options.arch,
            image_size=options.image_size or ARCHITECTURES[options.arch].image_size,
            repeats=options.repeats,
            device=options.device,
            objects=tuple(options.objects),
            images=options.images,
            precision=options.precision,
        )
        if options.threads:
            torch.set_num_threads(options.threads)
        rows = [row for name in options.what for row in MEASUREMENTS[name](settings)]
        sys.stdout.write(format_table(rows) + "\n")
        if options.out:
            write_atomic(options.out, json.dumps(report(settings, rows), indent=2).encode() + b"\n")
    except UltraSamError as error:
        sys.stderr.write(f"benchmark: {error}\n")
        return 2
    return 0


def report(settings: Settings, rows: Sequence[Row]) -> dict[str, Any]:
    """Return settings, machine and results as plain values."""
    device = torch.device(settings.device)
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {
        "settings": asdict(settings),
        "machine": {
            "device": processor or platform.machine(),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda if device.type == "cuda" else None,
        },
        "rows": [asdict(row) for row in rows],
    }


def _parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmark",
        description="Measure speed and memory. Cases run in turn in one process; the table has medians.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--what",
        nargs="+",
        choices=MEASUREMENTS,
        default=list(MEASUREMENTS),
        help="encoder: against segment-anything with the same weights; train: a training step; "
        "test: a test step against the encoder alone; memory: peak of a training step in a new process; "
        "adapters: step and memory of LoRA, Med-SA and the decoder alone against training everything",
    )
    parser.add_argument("--arch", choices=ARCHITECTURES, default="vit_b", help="architecture")
    parser.add_argument("--image-size", type=int, help="side of the square in pixels (of the architecture)")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of every case, after one untimed")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument(
        "--objects", type=int, nargs="+", default=[1, 4, 16], help="objects per training image"
    )
    parser.add_argument("--images", type=int, default=2, help="images of a training step")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of training and test steps")
    parser.add_argument("--threads", type=int, help="CPU threads (of PyTorch's choice)")
    parser.add_argument("--out", help="write settings, machine and all runs to this JSON file")
    return parser
