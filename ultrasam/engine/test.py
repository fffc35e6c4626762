"""The command ``test``: a configuration and a checkpoint in, metrics and overlays out."""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mmengine
import numpy as np
import torch
from mmengine.config import Config

import ultrasam
from ultrasam.engine.build import build_runner
from ultrasam.engine.checkpointing import load_weights, to_plain, weight_file, write_text
from ultrasam.engine.checks import leaf_datasets
from ultrasam.engine.commands import add_shared_arguments, finite, print_metrics, run_command, set_seed
from ultrasam.engine.config import load_config
from ultrasam.engine.distributed import process_count, process_rank
from ultrasam.engine.names import nearest
from ultrasam.engine.runner import UltraSamRunner
from ultrasam.engine.setup import register_all
from ultrasam.errors import ConfigError
from ultrasam.evaluation.orders import order_folder
from ultrasam.evaluation.page import results_page
from ultrasam.evaluation.results import write_objects

PROMPTS = ("point", "box", "centroid")
# Models whose answers are no masks of prompts.
WITHOUT_MASKS = ("Mask2FormerDetector", "ImageClassifier", "PromptedClassifier", "ImageRegressor")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="test.py", description="Test a model of UltraSam.")
    add_shared_arguments(parser)
    parser.add_argument("checkpoint", help="weights: a file of any format that UltraSam reads, or a name")
    parser.add_argument(
        "--prompt",
        choices=PROMPTS,
        help="prompt of every object: its deepest inner point, its box, or the mean of its pixels "
        "(default: the configuration's)",
    )
    parser.add_argument(
        "--both-orders",
        action="store_true",
        help="also score the same predictions in the other order of thresholding and enlarging masks",
    )
    parser.add_argument(
        "--no-pictures", action="store_true", help="leave pictures out of report.html, to give it on without images"
    )
    parser.add_argument("--show-dir", type=Path, help="folder for overlays of the predictions")
    parser.add_argument(
        "--out", type=Path, help="folder for metrics.json and logs (default: work_dirs/<configuration>/test)"
    )
    parser.add_argument("--datasets", nargs="+", metavar="SLUG", help="test on these data sets only, such as bus_bra")
    return parser.parse_args(argv)


def set_prompt(cfg: Config, prompt: str) -> None:
    """Set the prompt of every dataset of ``test_dataloader``, below lists, wrappers and concatenations.

    Args:
        cfg: The configuration, changed in place.
        prompt: ``point``, ``box`` or ``centroid``.
    """
    for leaf in leaf_datasets(cfg.test_dataloader.dataset):
        leaf["prompt"] = prompt


def check_prompts(cfg: Config) -> None:
    """Refuse prompts that the weights of a configuration never saw (its ``supported_prompts``).

    Raises:
        ConfigError: The prompt of a test data set is none of them.
    """
    supported = cfg.get("supported_prompts")
    for leaf in leaf_datasets(cfg.test_dataloader.dataset):
        kind = "point" if leaf.get("prompt") == "centroid" else leaf.get("prompt")
        if supported is not None and kind not in supported:
            raise ConfigError(
                f"{cfg.filename} was asked for {kind} prompts, but its weights take {' and '.join(supported)} "
                f"only; test with --prompt {supported[0]}"
            )


def dataset_slug(leaf: Mapping[str, Any]) -> str | None:
    """Return the data set named by an annotation file (``test.bus_bra.agnostic.json``), or None."""
    match = re.fullmatch(
        r"(?:train|val|test)\.(?!agnostic\.json)([^.]+)(?:\.agnostic)?\.json", Path(str(leaf.get("ann_file"))).name
    )
    return match.group(1) if match else None


def _with_slug(ann_file: str, old: str, new: str) -> str:
    """Exchange the data set in ``OLD/annotations/test.OLD.json``, folder and file name alike."""
    path = Path(ann_file)
    folders = [new if part == old else part for part in path.parts[:-1]]
    return str(Path(*folders) / path.name.replace(f".{old}.", f".{new}."))


def select_datasets(cfg: Config, slugs: Sequence[str]) -> None:
    """Test on some data sets only: those configured, or others laid out like the first configured one.

    Args:
        cfg: The configuration; ``test_dataloader.dataset`` becomes one dataset or a ``ConcatDataset``.
        slugs: Names of data sets, such as ``bus_bra``.

    Raises:
        ConfigError: If a name is not configured and cannot be put into the place of a configured one.
    """
    leaves = {dataset_slug(leaf): leaf for leaf in leaf_datasets(cfg.test_dataloader.dataset)}
    known = [slug for slug in leaves if slug is not None]
    chosen = []
    for slug in slugs:
        if slug in leaves:
            chosen.append(leaves[slug])
            continue
        if not known:
            raise ConfigError(
                f"--datasets {slug} cannot be applied, because the annotation files of test_dataloader in "
                f"{cfg.filename} are not named {{split}}.{{dataset}}.json; set test_dataloader.dataset "
                f"instead"
            )
        leaf = copy.deepcopy(leaves[known[0]])
        leaf["ann_file"] = _with_slug(str(leaf["ann_file"]), known[0], slug)
        path = Path(leaf.get("data_root") or "") / leaf["ann_file"]
        if not path.exists():
            raise ConfigError(
                f"--datasets names {slug!r}, which {cfg.filename} does not test on and for which there is "
                f"no {path}; "
                f"nearest: {nearest(slug, known)}"
            )
        chosen.append(leaf)
    cfg.test_dataloader.dataset = chosen[0] if len(chosen) == 1 else {"type": "ConcatDataset", "datasets": chosen}


def prepare_config(arguments: argparse.Namespace) -> Config:
    """Load the configuration and put the command line into it.

    Raises:
        ConfigError: If the configuration cannot test.
    """
    cfg = load_config(arguments.config, arguments.cfg_options)
    if cfg.get("test_dataloader") is None or cfg.get("test_evaluator") is None:
        raise ConfigError(
            f"the configuration {cfg.filename} does not test: it lacks test_dataloader or test_evaluator; add them"
        )
    if arguments.datasets:
        select_datasets(cfg, arguments.datasets)
    if arguments.prompt:
        set_prompt(cfg, arguments.prompt)
    check_prompts(cfg)
    if arguments.both_orders:
        cfg.model.compare_mask_orders = True
    if arguments.show_dir:
        if str(cfg.model.type).rpartition(".")[2] in WITHOUT_MASKS:
            raise ConfigError(
                f"--show-dir draws prompts and their masks, but {cfg.filename} builds {cfg.model.type}, whose "
                "answers are others; leave it away, or draw with ultrasam predict"
            )
        hooks = [h for h in cfg.get("custom_hooks") or [] if h.get("type") != "VisualizePromptsHook"]
        cfg.custom_hooks = [*hooks, {"type": "VisualizePromptsHook", "out_dir": str(arguments.show_dir)}]
    default = Path("work_dirs") / Path(str(cfg.filename)).stem / "test"
    cfg.work_dir = str(arguments.out or default)
    cfg.launcher = arguments.launcher
    cfg.load_from, cfg.resume = None, False
    keep_details(cfg)
    set_seed(cfg, arguments.seed)
    return cfg


def keep_details(cfg: Config) -> None:
    """Let the prompted-mask metrics of the test keep every object's scores, unless the configuration says not to."""
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    for evaluator in evaluators:
        if evaluator.get("type") == "PromptedMaskMetric":
            evaluator.setdefault("detail", True)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def annotation_record(leaf: Mapping[str, Any]) -> dict[str, Any]:
    """Return an annotation file with its checksum, and every filter on its objects that the configuration sets."""
    path = Path(leaf.get("data_root") or "") / str(leaf.get("ann_file"))
    names = ("classes", "empty", "exclude", "indices", "unlabelled")
    filters = {key: leaf[key] for key in names if leaf.get(key) is not None}
    manifest = path.parent.parent / "manifest.json"
    return {
        "file": str(leaf.get("ann_file")),
        "sha256": file_sha256(path) if path.is_file() else None,
        "manifest_sha256": file_sha256(manifest) if manifest.is_file() else None,
        "filters": filters or "none",
    }


def result_record(cfg: Config, checkpoint: Path, loaded: str, metrics: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return what ``metrics.json`` holds: the numbers and everything needed to get them again."""
    leaves = list(leaf_datasets(cfg.test_dataloader.dataset))
    return {
        "metrics": finite(to_plain(metrics, "metrics")),
        "config": str(cfg.filename),
        "checkpoint": {
            "path": str(checkpoint.resolve()),
            "sha256": file_sha256(checkpoint),
            "loaded": loaded,
        },
        "annotations": [annotation_record(leaf) for leaf in leaves],
        "prompt": sorted({str(leaf["prompt"]) for leaf in leaves if "prompt" in leaf}),
        "seed": seed,
        "processes": process_count(),
        "versions": {
            "ultrasam": ultrasam.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "mmengine": mmengine.__version__,
            "numpy": np.__version__,
        },
    }


def write_results(
    folder: Path, runner: UltraSamRunner, record: dict[str, Any], title: str, pictures: bool = True
) -> None:
    """Write ``metrics.json`` and, where the metric kept them, every object's scores, predictions and the page."""
    metrics = [m for m in runner.test_evaluator.metrics if getattr(m, "evaluation", None) is not None]
    evaluation = metrics[0].evaluation if metrics else None
    if evaluation is not None:
        record["breakdown"] = finite(evaluation.breakdown)
        write_objects(folder, evaluation)
        if metrics[0].other_evaluation is not None:
            write_objects(folder / order_folder(evaluation.records), metrics[0].other_evaluation)
    for metric in runner.test_evaluator.metrics:
        # Detections have predictions of their own.
        getattr(metric, "write_files", lambda _: None)(folder)
    write_text(folder / "metrics.json", json.dumps(record, indent=2) + "\n")
    if evaluation is not None:
        write_text(folder / "report.html", results_page(evaluation, record, title, pictures))


def test(arguments: argparse.Namespace) -> Path:
    """Test as the command line says.

    Returns:
        The folder that holds ``metrics.json`` and the logs.
    """
    register_all()
    cfg = prepare_config(arguments)
    checkpoint = weight_file(arguments.checkpoint)
    runner = build_runner(cfg)
    loaded = load_weights(runner.bare_model, checkpoint)
    runner.logger.info(f"Loaded {loaded}")
    metrics = runner.test()
    folder = Path(runner.work_dir)
    if process_rank() == 0:
        record = result_record(cfg, checkpoint, loaded, metrics, runner.seed)
        title = f"{Path(str(cfg.filename)).stem}: test results"
        write_results(folder, runner, record, title, not arguments.no_pictures)
    print_metrics("Test:", metrics)
    if arguments.show_dir and process_rank() == 0:
        print(f"Overlays: {arguments.show_dir.resolve()}")
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the program's name; those of the process where None.

    Returns:
        Exit status.
    """
    arguments = parse_arguments(argv)
    return run_command(lambda: test(arguments))
