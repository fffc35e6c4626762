"""How long preparing data takes, and how much memory: converting, merging, and reading what training reads."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data_prep.collection import synthetic
from ultrasam.errors import UltraSamError

# Gives the work to be measured.
Step = Callable[..., Callable[[], object]]


@dataclass(frozen=True)
class Measured:
    """Cost of a step that ran in a process of its own.

    Attributes:
        what: the step, in words.
        seconds: of the clock.
        cpu: seconds of processor time of the process and its children.
        peak: largest resident memory of the process in bytes.
        target: what it must reach, in words.
    """

    what: str
    seconds: float
    cpu: float
    peak: int
    target: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table; return the exit status: 0, or 2 after an error, which is printed as one sentence."""
    options = _parser().parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="benchmark_data_", dir=options.folder) as folder:
            measured = measure(Path(folder), options.bus_bra, options.images, options.masks, options.sets)
    except (UltraSamError, OSError) as error:
        print(f"benchmark_data: {error}", file=sys.stderr)
        return 2
    for row in measured:
        print(f"{row.what:<62}  {row.seconds:6.1f} s  {row.cpu:6.1f} s processor  {row.peak / 1e9:5.2f} GB"
              f"  target {row.target}")
    return 0


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="tools/benchmark_data.py", description=__doc__)
    parser.add_argument("--bus-bra", type=Path, metavar="SOURCE", help="also convert BUS-BRA from here")
    parser.add_argument("--folder", type=Path, help="where to work, with 10 GB of room (default: the system's)")
    parser.add_argument("--sets", type=int, default=synthetic.SETS, help="default: %(default)s")
    parser.add_argument("--images", type=int, default=synthetic.IMAGES, help="default: %(default)s")
    parser.add_argument("--masks", type=int, default=synthetic.MASKS, help="default: %(default)s")
    return parser


def measure(folder: Path, bus_bra: Path | None, images: int, masks: int, sets: int) -> list[Measured]:
    """Measure the steps one after the other.

    Args:
        folder: where to work.
        bus_bra: raw files of BUS-BRA, None to leave that out.
        images: of the synthetic collection.
        masks: of the synthetic collection.
        sets: of the synthetic collection.
    """
    rows = []
    if bus_bra is not None:
        target = "60 s for 1492 images on 2 cores"
        rows.append(_measure("convert BUS-BRA", target, _convert, bus_bra, folder / "bus_bra"))
        shutil.rmtree(folder / "bus_bra")
    root = folder / "synthetic"
    _measure("", "", _make, root, sets, images, masks)
    size = f"{masks:,} masks in {images:,} images of {sets} sets"
    rows.append(_measure(f"merge and split {size}", "90 s, 3 GB", _merge, root))
    rows.append(_measure("load the merged training file", "20 s, 2 GB", _load, root / "train.agnostic.json"))
    return rows


def _measure(what: str, target: str, step: Step, *arguments: object) -> Measured:
    """Run a step in a new process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        seconds, cpu, peak = pool.submit(_run, step, arguments).result()
    return Measured(what, seconds, cpu, peak, target)


def _run(step: Step, arguments: Sequence[Any]) -> tuple[float, float, int]:
    """Run a step and return its seconds, its processor time, and the peak memory of this process."""
    work = step(*arguments)
    begin = time.perf_counter(), _processor_time()
    work()
    return time.perf_counter() - begin[0], _processor_time() - begin[1], _peak()


def _processor_time() -> float:
    """Return the processor time of this process and of its finished children, in seconds."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _peak() -> int:
    """Return the largest resident memory of this process in bytes.

    Linux lets a new process inherit its parent's ``ru_maxrss``, so its own high-water mark is preferred.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# A step imports what it needs, which is not measured, and returns the work. So a process has nothing else in memory.
def _convert(source: Path, root: Path) -> Callable[[], object]:
    from data_prep.catalogue import find_converter
    from data_prep.pipeline import convert

    return partial(convert, find_converter("bus_bra"), source, root, keep_going=True)


def _make(root: Path, sets: int, images: int, masks: int) -> Callable[[], object]:
    return partial(synthetic.make_synthetic_sets, root, sets=sets, images=images, masks=masks)


def _merge(root: Path) -> Callable[[], object]:
    from data_prep.collection.merge import merge

    return partial(merge, root, infos={}, confirm=False)


def _load(path: Path) -> Callable[[], object]:
    from ultrasam.datasets.dataset import PromptedCocoDataset

    return partial(PromptedCocoDataset, path.name, str(path.parent))
