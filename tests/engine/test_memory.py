"""Memory of processes as the kernel tells it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ultrasam.datasets.synthetic_pixels import MakeUltrasound
from ultrasam.engine.memory import MIB, children, proportional_bytes
from ultrasam.geometry.rle import encode_mask


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_memory_that_is_taken_is_seen():
    # In a process of its own: here other tests take and share memory at the same time.
    script = "import sys; print(flush=True); input(); taken = bytearray(40 * 2**20); print(flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as child:
        child.stdout.readline()
        before = proportional_bytes(child.pid)
        assert child.pid in children(os.getpid())
        child.stdin.write(b"\n")
        child.stdin.flush()
        child.stdout.readline()
        assert 38 * MIB < proportional_bytes(child.pid) - before < 45 * MIB
        child.communicate(b"\n")
    assert child.pid not in children(os.getpid())
    assert proportional_bytes(child.pid) == 0


def test_made_pixels_are_the_same_again_and_darker_inside_of_objects():
    mask = np.zeros((60, 80), bool)
    mask[10:40, 20:60] = True
    item = type("O", (), {"rle": encode_mask(mask), "box": (20, 10, 60, 40)})
    image = {"height": 60, "width": 80, "img_id": 5, "objects": [item]}
    one, two = MakeUltrasound().transform(dict(image)), MakeUltrasound().transform(dict(image))
    assert np.array_equal(one["img"], two["img"]) and np.array_equal(one["masks"], mask[None])
    other = MakeUltrasound().transform({**image, "img_id": 6})
    assert not np.array_equal(one["img"], other["img"])
    assert one["img"][mask].mean() < one["img"][~mask].mean() - 40
