"""A training in a process of its own that leaves its peak memory: ``python -m ultrasam.finetune.measured_run``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ultrasam.io.files import write_atomic


def main(argv: Sequence[str]) -> int:
    """Train, then write ``{"peak_bytes": ...}``; the larger of this run's and of a run before that it resumed.

    Args:
        argv: the file to write, then the arguments of ``tools/train.py``.

    Returns:
        The training's exit status.
    """
    import torch

    from ultrasam.engine.benchmark_memory import peak_resident_bytes
    from ultrasam.engine.train import main as train

    record, *arguments = argv
    status = train(arguments)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_resident_bytes()
    before = json.loads(Path(record).read_text(encoding="utf-8"))["peak_bytes"] if Path(record).is_file() else 0
    write_atomic(record, json.dumps({"peak_bytes": max(peak, before)}).encode())
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
