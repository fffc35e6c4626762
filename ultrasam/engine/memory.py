"""Memory over time: whether a training grows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ultrasam.engine.distributed import gather_to_all

MIB = 2**20


@HOOKS.register_module()
class MemoryHook(Hook):
    """Writes memory into the log: of the training processes, of their loader workers, and of the GPU.

    Proportional set sizes: what processes share counts once. Linux only; elsewhere only the GPU's.

    Args:
        interval: iterations between measurements.
    """

    priority = "NORMAL"

    def __init__(self, interval: int = 10) -> None:
        self.interval = interval

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Measure, and take the sum over all processes."""
        if not self.every_n_train_iters(runner, self.interval):
            return
        main, workers = proportional_bytes(os.getpid()), sum(map(proportional_bytes, children(os.getpid())))
        gpu = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
        for name, values in zip(("main", "workers", "gpu"), zip(*gather_to_all((main, workers, gpu)), strict=True),
                                strict=True):  # fmt: skip
            if any(values):
                runner.message_hub.update_scalar(f"train/memory_{name}_mib", sum(values) / MIB)


def proportional_bytes(pid: int) -> int:
    """Return the memory of a process, pages divided by the number of processes that share them; 0 where unknown."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        # Ended in the meantime, or another system.
        return 0
    return 0


def children(pid: int) -> list[int]:
    """Return the child processes of a process."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(text) for text in path.read_text(encoding="ascii").split()]
        except OSError:
            continue
    return found
