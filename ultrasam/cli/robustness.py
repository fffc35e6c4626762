"""The verb ``robustness``: Dice against how the prompt was given, from one encoding of every test image."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ultrasam.engine.runner import UltraSamRunner
    from ultrasam.evaluation.robustness import Cost, ObjectCurves, Plan
    from ultrasam.evaluation.robustness_curves import Curve

_EVERY = 20


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="ultrasam robustness",
        description="Measure Dice on the test set against box jitter, click position, number of clicks and object "
        "size. Every image is encoded once. Runs in one process.",
    )
    parser.add_argument("config", help="configuration file, from the working directory, the project or its configs/")
    parser.add_argument("checkpoint", help="weights: a file of any format that UltraSam reads, or a name")
    parser.add_argument(
        "--jitter", nargs="+", type=float, metavar="SHARE",
        help="shares of width and height that box corners move by; 0 is always measured (default: 0 0.05 0.1 0.2 0.3)",
    )  # fmt: skip
    parser.add_argument(
        "--clicks", type=int, metavar="N",
        help="clicks on an object, the first inside, the others corrective (default: 5; 0 leaves clicks out, for "
        "models without points)",
    )  # fmt: skip
    parser.add_argument(
        "--positions", nargs="+", metavar="PLACE",
        help="of one click: deepest (always measured), centroid, random, border (default: all)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="folder to write (default: work_dirs/<configuration>/robustness)")
    parser.add_argument("--datasets", nargs="+", metavar="SLUG", help="test on these data sets only, such as bus_bra")
    parser.add_argument("--seed", type=int, help="of drawn prompts and bootstrap (default: the configuration's)")
    parser.add_argument(
        "--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="values of the configuration to change; +KEY=VALUE adds a key that it does not have",
    )  # fmt: skip
    return parser.parse_args(argv)


def build_runner_of(arguments: argparse.Namespace) -> UltraSamRunner:
    """Return the runner of the test, its weights loaded.

    Raises:
        ConfigError: the configuration cannot test, or its model takes no prompts.
    """
    from ultrasam.engine.build import build_runner
    from ultrasam.engine.test import prepare_config
    from ultrasam.errors import ConfigError
    from ultrasam.models.detector import UltraSamDetector

    default = Path("work_dirs") / Path(arguments.config).stem / "robustness"
    wanted = argparse.Namespace(**vars(arguments))
    # The test pipeline has to make some prompt, and boxes cost nothing; they are not used.
    wanted.prompt, wanted.show_dir, wanted.launcher, wanted.both_orders = "box", None, "none", False
    wanted.out = arguments.out or default
    cfg = prepare_config(wanted)
    if isinstance(cfg.test_dataloader.get("persistent_workers"), bool):
        cfg.test_dataloader.persistent_workers = False
    runner = build_runner(cfg)
    if not isinstance(runner.bare_model, UltraSamDetector):
        raise ConfigError(
            f"{cfg.filename} builds a {type(runner.bare_model).__name__}, which takes no prompts; "
            "give a configuration of UltraSamDetector"
        )
    return runner


def measure(runner: UltraSamRunner, plan: Plan) -> tuple[list[ObjectCurves], Cost]:
    """Return the curves of every object of the test set, in the order of the annotation files.

    Raises:
        DataError: the test set has no objects.
        ConfigError: the pipeline resizes otherwise than the weights need.
    """
    from ultrasam.errors import DataError
    from ultrasam.evaluation.robustness import Cost, measure_image
    from ultrasam.models.sample_checks import check_transforms

    model: Any = runner.bare_model
    model.eval()
    loader = runner.test_loop.dataloader
    cost, found, seen = Cost(), [], 0
    for data in loader:
        batch = model.data_preprocessor(data, False)
        check_transforms(batch["data_samples"], model.sam.preprocessing)
        for image, sample in zip(batch["inputs"], batch["data_samples"], strict=True):
            found += measure_image(model, image, sample, plan, cost)
            seen += 1
            if seen % _EVERY == 0:
                runner.logger.info(f"Image {seen} of {len(loader.dataset)}, {len(found)} objects")
    if not found:
        raise DataError(
            f"There are no objects to prompt on the {seen} images of the test set: check that its annotation file "
            "belongs to them."
        )
    return found, cost


def robustness(arguments: argparse.Namespace) -> Path:
    """Measure and write; return the folder."""
    from ultrasam.engine.checkpointing import load_weights, weight_file
    from ultrasam.engine.setup import register_all
    from ultrasam.engine.test import result_record

    register_all()
    from ultrasam.evaluation.robustness import CLICKS, JITTER, Plan
    from ultrasam.evaluation.robustness_curves import curves_of, curves_record, objects_csv
    from ultrasam.evaluation.robustness_prompts import POSITIONS

    clicks = CLICKS if arguments.clicks is None else arguments.clicks
    # Refused before anything is loaded; the seed is the runner's.
    plan = Plan(tuple(arguments.jitter or JITTER), tuple(arguments.positions or POSITIONS), clicks)
    checkpoint = weight_file(arguments.checkpoint)
    runner = build_runner_of(arguments)
    loaded = load_weights(runner.bare_model, checkpoint)
    runner.logger.info(f"Loaded {loaded}")
    plan = Plan(plan.jitter, plan.positions, plan.clicks, int(runner.seed or 0))
    objects, cost = measure(runner, plan)
    curves = curves_of(objects, plan)
    record = result_record(runner.cfg, checkpoint, loaded, {}, plan.seed)
    for name in ("metrics", "prompt"):
        del record[name]
    record |= {"plan": asdict(plan), "cost": cost.record(), "curves": curves_record(curves)}
    folder = Path(runner.work_dir)
    write(folder, record, curves, objects_csv(objects, plan))
    return folder


def write(folder: Path, record: dict[str, Any], curves: list[Curve], objects: bytes) -> None:
    """Write every file, all of them made first, and print the curves, what an object took, and the files."""
    from ultrasam.engine.commands import finite
    from ultrasam.evaluation.robustness_curves import curves_csv
    from ultrasam.evaluation.robustness_page import cost_sentence, figure_files, robustness_page
    from ultrasam.io.files import write_atomic

    stem = Path(record["config"]).stem
    files = {
        "robustness.json": (json.dumps(finite(record), indent=2) + "\n").encode(),
        "robustness.csv": curves_csv(curves),
        "robustness_objects.csv": objects,
        "robustness.html": robustness_page(curves, record["cost"], record, f"{stem}: robustness").encode(),
        **{f"robustness.{name}": data for name, data in figure_files(curves, stem).items()},
    }
    for name, data in files.items():
        write_atomic(folder / name, data)
    for curve in curves:
        for point in curve.points:
            dice = point.dice
            interval = f"  {dice.low:.4f} to {dice.high:.4f}" if math.isfinite(dice.low) else ""
            print(f"{curve.kind:<9}{curve.prompt:<6}{point.condition:<12}{dice.mean:.4f}{interval}")
    print(cost_sentence(record["cost"]))
    print(f"Wrote {', '.join(files)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; return the exit status: 0, or 2 after an error. The last line printed is the folder written."""
    arguments = parse_arguments(argv)
    from ultrasam.engine.commands import run_command

    return run_command(lambda: robustness(arguments))
