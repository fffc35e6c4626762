"""Many objects at once on a CPU: each thread computes some of them alone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import torch

# Objects that make it worth giving each thread its own.
OBJECTS_A_THREAD = 4
T = TypeVar("T")


def share_out(work: Callable[[slice], T], count: int) -> list[T]:
    """Call ``work`` with parts of ``count`` objects, in their order, and return what it returns.

    Where every CPU thread gets several objects, each computes its own ones alone: most operations on an object are
    too small to be worth two threads.
    """
    threads = torch.get_num_threads()
    if count < OBJECTS_A_THREAD * threads or threads == 1:
        return [work(slice(0, count))]
    bounds = [count * number // threads for number in range(threads + 1)]
    parts = [slice(start, stop) for start, stop in pairwise(bounds)]

    def alone(part: slice) -> T:
        # Settings of this thread; but MKL's number of threads is everyone's, so it is put back below.
        torch.set_num_threads(1)
        with torch.no_grad():
            return work(part)

    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(alone, parts))
    finally:
        torch.set_num_threads(threads)
