"""``ultrasam demo``: the whole of UltraSam on the phantom, from images to pictures of predictions."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

CONFIG = "configs/demo/litemedsam_decoder_phantom.py"


def run_phase(name: str, status: int, started: float) -> None:
    """Say how long a phase took; stop where it failed.

    Raises:
        SystemExit: with the phase's exit status.
    """
    if status:
        raise SystemExit(status)
    print(f"[demo] {name}: {time.perf_counter() - started:.0f} s", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; return 0, or the status of the phase that failed."""
    parser = argparse.ArgumentParser(prog="ultrasam demo", description="Make, train, test and draw the phantom.")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/demo"), help="folder to write")
    parser.add_argument("--images", type=int, default=360, help="images of the phantom")
    parser.add_argument("--seed", type=int, default=0, help="seed of the phantom and of the training")
    parser.add_argument("--config", default=CONFIG, help="configuration to train")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="passed on to train and test")
    options = parser.parse_args(argv)
    out: Path = options.out.resolve()

    from ultrasam.datasets.phantom.cli import main as phantom

    started = time.perf_counter()
    data = out / "phantom"
    status = phantom([str(data), "--images", str(options.images), "--seed", str(options.seed)])
    run_phase("phantom", status, started)
    os.environ["ULTRASAM_PHANTOM"] = str(data)

    from ultrasam.engine.test import main as test
    from ultrasam.engine.train import main as train

    more = [f"model.cache_dir={out / 'embeddings'}", *options.cfg_options]
    started = time.perf_counter()
    folder = str(out / "train")
    seed = ["--seed", str(options.seed)]
    status = train([options.config, "--work-dir", folder, "--amp", *seed, "--cfg-options", *more])
    run_phase("training", status, started)
    checkpoint = (out / "train" / "last_checkpoint").read_text(encoding="utf-8").strip()

    scores = {}
    for prompt in ("point", "box"):
        started = time.perf_counter()
        result = out / f"test_{prompt}"
        pictures = ["--out", str(result), "--show-dir", str(result / "pictures")]
        status = test([options.config, checkpoint, "--prompt", prompt, *pictures, "--cfg-options", *more])
        run_phase(f"test with {prompt} prompts", status, started)
        metrics = json.loads((result / "metrics.json").read_text(encoding="utf-8"))["metrics"]
        scores[prompt] = metrics

    print("\nHeld-out phantom images:")
    for prompt, metrics in scores.items():
        print(
            f"  {prompt:<6} mAP {metrics['coco/segm_mAP']:.3f}  mAP50 {metrics['coco/segm_mAP_50']:.3f}  "
            f"mean Dice {metrics['coco/mean_dice']:.3f}  ({metrics['coco/objects']:.0f} objects)"
        )
    print("Pictures worth looking at:")
    for prompt in scores:
        print(f"  {out / f'test_{prompt}' / 'pictures' / 'contact_sheet.png'}")
    print(f"Checkpoint: {checkpoint}")
    print(out)
    return 0
