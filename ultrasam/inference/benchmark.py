"""How long answers take after the encoder: one prompt and many, with what makes masks of the image."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ultrasam.errors import ConfigError, UltraSamError
from ultrasam.inference.model import Embedding, UltraSam
from ultrasam.inference.prompt import Prompt
from ultrasam.inference.session import Session
from ultrasam.io.files import write_atomic
from ultrasam.modeling.build import ARCHITECTURES, build_sam
from ultrasam.modeling.sam import Sam

PASSES = {"one pass": ("multi",), "two passes": ("single", "multi")}


@dataclass(frozen=True)
class Row:
    """Times of one case.

    Attributes:
        passes: name of the decoder's passes.
        objects: prompts in one call.
        session: "new" (the first answer after the encoder) or "again".
        median: seconds.
        fastest: seconds.
        ratio: median over that of one prompt in the same kind of session.
    """

    passes: str
    objects: int
    session: str
    median: float
    fastest: float
    ratio: float


@dataclass
class _Network:
    sam: Sam
    passes: tuple[str, ...]
    mask_prompt: bool
    card: dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, and write JSON where asked.

    Args:
        arguments: of the command line; None for those of the process.

    Returns:
        Exit status: 0, or 2 after an error that was printed as one sentence.
    """
    options = _parser().parse_args(arguments)
    try:
        if min(options.repeats, *options.objects, *options.size, options.threads or 1) < 1:
            raise ConfigError("repeats, objects, sizes and threads must be at least 1")
        if options.threads:
            torch.set_num_threads(options.threads)
        rows = measure(options.arch, options.image_size, tuple(options.size), options.objects, options.repeats)
        sys.stdout.write(format_table(rows) + "\n")
        if options.out:
            machine = {"cpu": platform.processor() or platform.machine(), "cpus": os.cpu_count()}
            versions = {"threads": torch.get_num_threads(), "torch": torch.__version__}
            content = {"settings": vars(options), "machine": {**machine, **versions}, "rows": [asdict(r) for r in rows]}
            write_atomic(options.out, json.dumps(content, indent=2).encode() + b"\n")
    except UltraSamError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def measure(
    arch: str, image_size: int | None, size: tuple[int, int], objects: Sequence[int], repeats: int
) -> list[Row]:
    """Time ``Session.predict`` with boxes on the CPU, with random weights and a random image.

    Args:
        arch: architecture, whose decoder counts; the encoder runs once, before.
        image_size: side of the network's square in pixels, None for the architecture's own.
        size: (height, width) of the image in pixels.
        objects: numbers of prompts in one call; 1 is added.
        repeats: timed runs of every case, in turn, after one untimed.
    """
    try:
        sam = build_sam(arch, image_size).eval().requires_grad_(False)
    except ValueError as error:
        raise ConfigError(f"{error}; choose another --image-size") from error
    counts = sorted({1, *objects})
    image, features = np.full((*size, 3), 100, np.uint8), _features(sam)
    cases: dict[tuple[str, int, str], Callable[[], object]] = {}
    for name, passes in PASSES.items():
        model = UltraSam(_Network(sam, passes, True, {}))
        session = _session(model, image, features)
        for count in counts:
            prompts = [_box(number, size) for number in range(count)]
            cases[name, count, "new"] = lambda m=model, p=prompts: _session(m, image, features).predict(prompts=p)  # type: ignore[misc]
            cases[name, count, "again"] = lambda s=session, p=prompts: s.predict(prompts=p)  # type: ignore[misc]
    times: dict[tuple[str, int, str], list[float]] = {case: [] for case in cases}
    for turn in range(repeats + 1):
        for case, run in cases.items():
            start = time.perf_counter()
            run()
            if turn:
                times[case].append(time.perf_counter() - start)
    rows = []
    for (name, count, kind), found in times.items():
        one = statistics.median(times[name, 1, kind])
        rows.append(Row(name, count, kind, statistics.median(found), min(found), statistics.median(found) / one))
    return rows


def format_table(rows: Sequence[Row]) -> str:
    """Return the rows as a table in milliseconds."""
    lines = [f"{'passes':<12}{'prompts':>8}{'session':>9}{'median ms':>11}{'fastest ms':>12}{'x one':>8}"]
    for row in rows:
        numbers = f"{1000 * row.median:>11.1f}{1000 * row.fastest:>12.1f}{row.ratio:>8.1f}"
        lines.append(f"{row.passes:<12}{row.objects:>8}{row.session:>9}{numbers}")
    return "\n".join(lines)


@torch.no_grad()
def _features(sam: Sam) -> Tensor:
    """Encode a random image: answers come after the encoder, whose large arrays also change how memory is allocated."""
    side = sam.image_size
    return sam.encode(torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)))


def _session(model: UltraSam, image: NDArray[np.uint8], features: Tensor) -> Session:
    """Return a session on an image as if it were encoded; the field of view is looked for in the first answer."""
    return model.session(image, Embedding(features, model.fit(*image.shape[:2])))


def _box(number: int, size: tuple[int, int]) -> Prompt:
    """Return a box a third as large as the image, somewhere in it."""
    height, width = size
    left, top = width * (number % 5) / 10, height * (number % 7) / 14
    return Prompt.of(box=[left, top, left + width / 3, top + height / 3])


def _parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmark_predict",
        description="Measure answers to prompts after the encoder, on the CPU. Cases run in turn in one process.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--arch", choices=ARCHITECTURES, default="vit_b", help="architecture")
    parser.add_argument("--image-size", type=int, help="side of the square in pixels (of the architecture)")
    parser.add_argument("--size", type=int, nargs=2, default=[768, 1024], help="height and width of the image")
    parser.add_argument("--objects", type=int, nargs="+", default=[20], help="prompts in one call, besides one")
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of every case, after one untimed")
    parser.add_argument("--threads", type=int, help="CPU threads (of PyTorch's choice)")
    parser.add_argument("--out", help="write settings, machine and all rows to this JSON file")
    return parser
