"""The command ``python -m ultrasam.datasets.phantom``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ultrasam.datasets.phantom.generate import generate_phantom
from ultrasam.errors import UltraSamError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to a parser."""
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="data root to make; reused if it is the same phantom"
    )
    parser.add_argument(
        "--images",
        type=int,
        default=300,
        metavar="N",
        help="pictures over all datasets (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="other seeds give other patients (default: 0)"
    )
    parser.add_argument(
        "--size",
        type=int,
        default=256,
        metavar="PX",
        help="scale; 256 gives pictures of 220-340 by 260-420 pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--workers", type=int, metavar="K", help="processes (default: one per core, at most 8)"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Make a phantom; return the exit status: 0, or 2 after an error, which is printed as one sentence."""
    parser = argparse.ArgumentParser(
        prog="python -m ultrasam.datasets.phantom",
        description="Make synthetic B-mode ultrasound datasets with exact masks, as COCO files.",
    )
    add_arguments(parser)
    options = parser.parse_args(argv)
    workers = default_workers() if options.workers is None else options.workers
    try:
        report = generate_phantom(
            options.out, options.images, options.seed, size=options.size, workers=workers
        )
    except UltraSamError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report.sentence())
    return 0


def default_workers() -> int:
    """Cores this process may use, at most 8."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, 8)
