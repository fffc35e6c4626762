"""``tools/train.py --dry-run``: what a training would do, found out in minutes instead of after a night in the queue.

Reads the annotation files for real, opens every image, takes some training steps, and says what they cost. Nothing is
written to the work folder.
"""

from __future__ import annotations

import copy
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ultrasam.datasets.composition import composition_of
from ultrasam.datasets.nesting import leaves
from ultrasam.engine.benchmark_memory import peak_resident_bytes
from ultrasam.engine.build import build_runner
from ultrasam.engine.distributed import gather_to_all, process_count, process_rank
from ultrasam.engine.runner import UltraSamRunner
from ultrasam.errors import DataError, UltraSamError
from ultrasam.io.images import image_size, read_image

STEPS = 10
# The first steps allocate memory and start workers.
WARM_UP = 3
SHOWN = 10
GIB = 2**30


@HOOKS.register_module()
class StepTimesHook(Hook):
    """Keeps the seconds of every training step, loading included."""

    priority = "LOWEST"

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.waiting: list[float] = []
        self.last = 0.0

    def before_train(self, runner: Any) -> None:
        """Start the clock."""
        self.last = time.perf_counter()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Note how long the batch was waited for."""
        self.waiting.append(time.perf_counter() - self.last)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Note the time of the step."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds.append(now - self.last)
        self.last = now


def dry_run(cfg: Config, steps: int = STEPS) -> None:
    """Check the data of a configuration, take some steps, and print what the training would be.

    Args:
        cfg: as ``tools/train.py`` would train it.
        steps: training steps to take.

    Raises:
        DataError: images are missing or cannot be opened.
    """
    trial = _trial(cfg, steps)
    try:
        runner = build_runner(trial)
        checked = _check_data(cfg, runner) if process_rank() == 0 else 0
        runner.train()
        hook = next(one for one in runner.hooks if isinstance(one, StepTimesHook))
        lines = report(cfg, runner, hook, checked)
        if process_rank() == 0:
            print("\n".join(lines), flush=True)
    finally:
        shutil.rmtree(trial.work_dir, ignore_errors=True)


def _check_data(cfg: Config, runner: UltraSamRunner) -> int:
    """Open the images of training and validation; return how many there are."""
    checked = check_images(runner.train_dataloader.dataset)
    if cfg.get("val_dataloader"):
        loader = UltraSamRunner.build_dataloader(copy.deepcopy(cfg.val_dataloader), seed=0)
        checked += check_images(loader.dataset)
    return checked


def _trial(cfg: Config, steps: int) -> Config:
    """Return the configuration of a few steps that leave nothing behind."""
    trial = copy.deepcopy(cfg)
    trial.work_dir = tempfile.mkdtemp(prefix="ultrasam-dry-run-")
    accumulation = int(cfg.optim_wrapper.get("accumulative_counts", 1))
    # Optimizer steps are taken whole.
    count = -(-max(steps, WARM_UP + 1) // accumulation) * accumulation
    trial.train_cfg = {**cfg.train_cfg, "max_iters": count, "val_interval": count}
    trial.val_dataloader = trial.val_evaluator = trial.val_cfg = None
    trial.test_dataloader = trial.test_evaluator = trial.test_cfg = None
    trial.default_hooks = {**cfg.get("default_hooks", {}), "checkpoint": None}
    trial.custom_hooks = [*(cfg.get("custom_hooks") or []), {"type": "StepTimesHook"}]
    trial.visualizer = {"type": "Visualizer", "vis_backends": [], "name": "dry_run"}
    return trial


def check_images(dataset: Any, workers: int = 8) -> int:
    """Open every image of a dataset and compare its size with the annotation file.

    Returns:
        how many there are.

    Raises:
        DataError: some are missing, damaged or of another size; the first ones are named.
    """
    images = {str(image.path): image for leaf in leaves(dataset) for image in getattr(leaf, "images", ())}
    with ThreadPoolExecutor(workers) as pool:
        problems = [problem for problem in pool.map(_problem, images.values()) if problem]
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise DataError(f"{len(problems)} of {len(images)} images cannot be used: {'; '.join(problems[:SHOWN])}{more}")
    return len(images)


def _problem(image: Any) -> str | None:
    """Return what is wrong with an image, or None."""
    try:
        size = image_size(image.path)
        if size == (image.height, image.width):
            read_image(image.path)
            return None
    except UltraSamError as error:
        return str(error)
    return f"{image.path} has {size[0]} x {size[1]} pixels, its annotation file says {image.height} x {image.width}"


def report(cfg: Config, runner: UltraSamRunner, hook: StepTimesHook, checked: int) -> list[str]:
    """Return the lines that say what the training would do and cost; every process must call this."""
    step = statistics.median(hook.seconds[WARM_UP:])
    waiting = statistics.median(hook.waiting[WARM_UP:])
    peaks = gather_to_all(peak_memory())
    total, batch = int(cfg.train_cfg.max_iters), runner.train_dataloader.batch_size
    accumulation = int(cfg.optim_wrapper.get("accumulative_counts", 1))
    trained = sum(p.numel() for p in runner.bare_model.parameters() if p.requires_grad)
    whole = sum(p.numel() for p in runner.bare_model.parameters())
    found = composition_of(runner.train_dataloader.dataset)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    free = shutil.disk_usage(_existing(Path(cfg.work_dir))).free
    # Weights, and two moments of what trains.
    checkpoint = 4 * (whole + 2 * trained)
    kept = int(((cfg.get("default_hooks") or {}).get("checkpoint") or {}).get("max_keep_ckpts", 2))
    lines = [
        "Dry run: nothing was written. The training would be:",
        f"  data           {found['images']:,} images, {found['masks']:,} masks of {len(found['sets'])} data sets; "
        f"{checked:,} image files opened, all sound",
        *(f"                 {name}: {entry['images']:,} images, {entry['masks']:,} masks"
          for name, entry in found["sets"].items()),
        *(f"  left out       {', '.join(one['words'])}: {one['sets']}" for one in found.get("exclusions", ())),
        f"  parameters     {trained:,} of {whole:,} train",
        f"  batch          {batch} images x {process_count()} processes x {accumulation} accumulated = "
        f"{batch * process_count() * accumulation} an optimizer step",
        f"  learning rate  {cfg.optim_wrapper.optimizer.get('lr')}",
        f"  device         {device}",
        f"  step           {step:.2f} s, of which {waiting:.2f} s waiting for data "
        f"(median of {len(hook.seconds) - WARM_UP} after {WARM_UP})",
        f"  time           {total:,} steps, {hours(total * step)}, validation and checkpoints apart",
        f"  memory         {', '.join(f'{peak / GIB:.2f} GiB' for peak in peaks)} at the highest "
        f"({'GPU' if torch.cuda.is_available() else 'main process'})",
        f"  disk           about {kept * checkpoint / GIB:.2f} GiB for {kept} checkpoints in {cfg.work_dir}, "
        f"{free / GIB:.0f} GiB are free",
    ]  # fmt: skip
    if kept * checkpoint > free:
        lines.append("  warning        the checkpoints do not fit the disk")
    return lines


def peak_memory() -> int:
    """Return the most bytes that this process has held: on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return peak_resident_bytes()


def hours(seconds: float) -> str:
    """Return a duration as people say it."""
    if seconds < 3600:
        return f"{seconds / 60:.0f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"
    return f"{seconds / 3600:.1f} hours"


def _existing(path: Path) -> Path:
    """Return the path, or its nearest parent that exists."""
    candidates: Iterable[Path] = (path.absolute(), *path.absolute().parents)
    return next(candidate for candidate in candidates if candidate.exists())
