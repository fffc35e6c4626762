#!/usr/bin/env python
"""Train on a synthetic US-43d of full size with a tiny network on several CPU processes, and watch the memory.

python tools/benchmark_scale.py [--images 187000] [--masks 282000] [--processes 2] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from data_prep.collection import synthetic
from data_prep.collection.merge import merge

PROJECT = Path(__file__).resolve().parents[1]
CONFIG = PROJECT / "configs" / "studies" / "scale_synthetic.py"
# Workers and buffers have their size by then.
SETTLED = 50


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=synthetic.SETS)
    parser.add_argument("--images", type=int, default=synthetic.IMAGES)
    parser.add_argument("--masks", type=int, default=synthetic.MASKS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to work, with 2 GB of room (default: the system's)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="benchmark_scale_", dir=options.folder) as folder:
        root, work = Path(folder) / "data", Path(folder) / "work"
        synthetic.make_synthetic_sets(root, sets=options.sets, images=options.images, masks=options.masks)
        merge(root, infos={}, confirm=False)
        begin = time.perf_counter()
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={options.processes}"]
        command = [*start, str(PROJECT / "tools" / "train.py"), str(CONFIG), "--launcher", "pytorch"]
        environment = {**os.environ, "ULTRASAM_DATA": str(root), "OMP_NUM_THREADS": "1"}
        status = subprocess.run([*command, "--work-dir", str(work)], env=environment, check=False).returncode
        if status:
            return status
        seconds = time.perf_counter() - begin
        report(next(work.glob("*/vis_data/scalars.json")), seconds)
    return 0


def report(log: Path, seconds: float) -> None:
    """Print memory over time, and by how much it grew after the start."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if "memory_main_mib" in row]
    print(f"{'iteration':>9}  {'training processes':>20}  {'loader workers':>16}  {'loss':>8}")
    for row in rows:
        print(f"{row['step']:>9}  {row['memory_main_mib']:>16.0f} MiB  {row['memory_workers_mib']:>12.0f} MiB"
              f"  {row['loss']:>8.3f}")  # fmt: skip
    total = {row["step"]: row["memory_main_mib"] + row["memory_workers_mib"] for row in rows}
    first = min(step for step in total if step >= SETTLED)
    last = max(total)
    print(f"{total[last] - total[first]:+.0f} MiB from iteration {first} to {last}; {seconds:.0f} s in all")


if __name__ == "__main__":
    sys.exit(main())
