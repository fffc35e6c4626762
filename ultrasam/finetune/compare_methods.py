"""The methods side by side: one base, the same number of steps, one table. Run again, it continues.

What is done is told by files: a training that reached its last step, a test whose ``metrics.json`` names the same
checkpoint. So the comparison can be stopped at any time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ultrasam.errors import ConfigError, UltraSamError
from ultrasam.io.files import write_atomic

FAMILIES: dict[str, tuple[str, ...]] = {
    "vit-tiny": ("full", "decoder", "lora", "med-sa", "samus"),
    # SAMUS is made of SAM's ViT.
    "litemedsam": ("full", "decoder", "lora", "med-sa"),
}
BASE_CONFIG = "configs/demo/ultrasam_vit-tiny_phantom.py"
PROMPTS = ("point", "box")
SCORES = {"mAP": "coco/segm_mAP", "Dice": "coco/mean_dice"}


@dataclass
class Result:
    """One line of the table.

    Attributes:
        method: full, decoder, lora, med-sa, samus; "base" is what they start from.
        trained: numbers that train.
        step_seconds: median of a training step without reading data.
        peak_bytes: of the training's process (CPU), or of the GPU.
        scores: prompt to {"mAP", "Dice"}; a prompt that the method does not take is absent.
    """

    method: str
    trained: int | None = None
    step_seconds: float | None = None
    peak_bytes: int | None = None
    scores: dict[str, dict[str, float]] = field(default_factory=dict)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="compare_adapters",
        description="Train every method from one base on BUS-BRA (folds 2 to 4), test on fold 1, write one table.",
    )
    parser.add_argument("--out", type=Path, default=Path("work_dirs/compare_adapters"), help="folder to write")
    parser.add_argument("--family", choices=list(FAMILIES), default="vit-tiny", help="network (default: vit-tiny)")
    parser.add_argument("--methods", nargs="+", help="some of the family's methods (default: all)")
    parser.add_argument("--iterations", type=int, default=1000, help="steps of every method (default: 1000)")
    parser.add_argument(
        "--base",
        help="weights to start from (vit-tiny: trained on the phantom where none are given; litemedsam: its own)",
    )
    parser.add_argument("--base-iterations", type=int, default=2000, help="steps on the phantom (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of every training (default: 0)")
    parser.add_argument("--amp", action="store_true", help="train in bfloat16, as tools/train.py --amp does")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="for every training and test")
    return parser.parse_args(argv)


def compare(options: argparse.Namespace) -> Path:
    """Run what is missing and write ``table.md`` and ``table.json``; return the table's path.

    Raises:
        UltraSamError: an option does not exist, or a training or test failed.
    """
    known = FAMILIES[options.family]
    methods = options.methods or list(known)
    wrong = [method for method in methods if method not in known]
    if wrong:
        raise ConfigError(f"{options.family} has no method {wrong[0]!r}; it has {', '.join(known)}")
    out: Path = options.out.resolve()
    base = options.base or (trained_base(options, out) if options.family == "vit-tiny" else "litemedsam")
    table = out / "table.md"
    results: list[Result] = []
    if options.family == "vit-tiny":
        results.append(Result("base", scores=test_all(options, "full", base, out / "base_test")))
    for method in methods:
        results.append(run_method(options, method, base, out / method))
        # After every method, so that a run that is stopped leaves what it has.
        write_atomic(table, table_text(results, options).encode())
        found = json.dumps([asdict(result) for result in results], indent=2)
        write_atomic(out / "table.json", found.encode() + b"\n")
    return table


def trained_base(options: argparse.Namespace, out: Path) -> str:
    """Train the small ViT on the phantom, once; return its checkpoint."""
    total = options.base_iterations
    train(BASE_CONFIG, out / "base", total, [f"default_hooks.checkpoint.interval={total}"], options)
    return str(checkpoint_of(out / "base"))


def run_method(options: argparse.Namespace, method: str, base: str, folder: Path) -> Result:
    """Train and test one method; return its line."""
    config, total = config_of(options.family, method), options.iterations
    warm = max(min(50, total // 10), 1)
    more = [f"model.weights={base}", f"default_hooks.checkpoint.interval={max(total // 4, 1)}"]
    more += [f"param_scheduler.0.end={warm}", f"param_scheduler.1.begin={warm}", f"param_scheduler.1.end={total}"]
    train(config, folder / "train", total, more, options)
    checkpoint = checkpoint_of(folder / "train")
    content = read_training(checkpoint)
    times = content["message_hub"]["log_scalars"]
    step = [
        whole - data for whole, data in zip(times["train/time"]["log"], times["train/data_time"]["log"], strict=True)
    ]
    return Result(
        method,
        trained=content["card"]["trainable"]["trained"],
        step_seconds=statistics.median(step),
        peak_bytes=json.loads((folder / "train" / "measured.json").read_text(encoding="utf-8"))["peak_bytes"],
        scores=test_all(options, method, str(checkpoint), folder),
    )


def train(config: str, folder: Path, total: int, more: Sequence[str], options: argparse.Namespace) -> None:
    """Train to the last step, in a process of its own, unless that was done."""
    if (folder / "measured.json").is_file() and (folder / f"iter_{total}.pth").is_file():
        print(f"{folder} is complete", flush=True)
        return
    arguments = [config, "--work-dir", str(folder), "--resume", "--seed", str(options.seed)]
    arguments += [*(["--amp"] if options.amp else []), "--cfg-options", *more]
    arguments += [f"train_cfg.max_iters={total}", f"train_cfg.val_interval={total}", *options.cfg_options]
    run([sys.executable, "-m", "ultrasam.finetune.measured_run", str(folder / "measured.json"), *arguments], folder)


def test_all(options: argparse.Namespace, method: str, weights: str, folder: Path) -> dict[str, dict[str, float]]:
    """Test weights with every prompt that the method takes, unless that was done; return the scores."""
    from ultrasam.checkpoints import resolve_weights, sha256_of

    digest = sha256_of(resolve_weights(weights))
    scores: dict[str, dict[str, float]] = {}
    embeddings = folder / "embeddings"
    for prompt in PROMPTS[:1] if method == "samus" else PROMPTS:
        place = folder / f"test_{prompt}"
        found = read_metrics(place, digest)
        if found is None:
            command = [config_of(options.family, method), weights, "--prompt", prompt, "--out", str(place)]
            # The second prompt needs no second pass of the encoder.
            more = ["--cfg-options", f"model.cache_dir={embeddings}", *options.cfg_options]
            run([sys.executable, "-m", "ultrasam.cli.main", "test", *command, "--no-pictures", *more], place)
            found = read_metrics(place, digest)
        if found is None:
            raise UltraSamError(
                f"the test in {place} left no metrics.json of {weights}; remove the folder and run again"
            )
        scores[prompt] = {name: float(found[key]) for name, key in SCORES.items()}
    shutil.rmtree(embeddings, ignore_errors=True)
    return scores


def run(command: Sequence[str], folder: Path) -> None:
    """Run a command whose output the user sees.

    Raises:
        UltraSamError: it failed; the sentence names the folder.
    """
    print(f"$ {' '.join(command[1:])}", flush=True)
    status = subprocess.run(list(command), check=False).returncode
    if status:
        raise UltraSamError(f"the run of {folder} ended with exit status {status}; its last lines say why")


def config_of(family: str, method: str) -> str:
    """Return the configuration of a method."""
    return f"configs/demo/adapter_{method}_{family}_bus-bra.py"


def checkpoint_of(folder: Path) -> Path:
    """Return the last checkpoint of a training.

    Raises:
        UltraSamError: there is none.
    """
    from ultrasam.engine.checkpointing import latest_checkpoint

    found = latest_checkpoint(folder)
    if found is None:
        raise UltraSamError(f"{folder} holds no checkpoint; remove the folder and run again")
    return found


def read_training(checkpoint: Path) -> dict[str, Any]:
    """Return a training checkpoint's content."""
    from ultrasam.engine.checkpointing import read_checkpoint

    return read_checkpoint(checkpoint)


def read_metrics(folder: Path, sha256: str) -> dict[str, Any] | None:
    """Return a test's metrics if they are those of these weights, else None."""
    path = folder / "metrics.json"
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    return record["metrics"] if record["checkpoint"]["sha256"] == sha256 else None


def table_text(results: Sequence[Result], options: argparse.Namespace) -> str:
    """Return the table in Markdown."""
    head = ["method", "trained", "step (s)", "peak memory (GiB)"]
    head += [f"{name} {prompt}" for prompt in PROMPTS for name in SCORES]
    lines = [
        f"BUS-BRA, {options.family}, {options.iterations} steps each{' in bfloat16' if options.amp else ''}, seed "
        f"{options.seed}; trained on folds 2 to 4, tested on fold 1.",
        "",
        f"| {' | '.join(head)} |",
        f"|---|{'--:|' * (len(head) - 1)}",
    ]
    for result in results:
        cells = [
            result.method,
            "-" if result.trained is None else f"{result.trained:,}",
            "-" if result.step_seconds is None else f"{result.step_seconds:.3f}",
            "-" if result.peak_bytes is None else f"{result.peak_bytes / 2**30:.2f}",
        ]
        for prompt in PROMPTS:
            found = result.scores.get(prompt)
            cells += ["-" if found is None else f"{found[name]:.3f}" for name in SCORES]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the table and its path are printed last."""
    options = parse_arguments(argv)
    try:
        table = compare(options)
    except UltraSamError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    print(f"{table.read_text(encoding='utf-8')}\n{table}", flush=True)
    return 0
