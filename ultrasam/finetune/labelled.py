"""Images with classes or values for a fine-tuning: where they are, and what all of these tasks write alike."""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrasam.datasets.coco_images import load_json
from ultrasam.errors import ConfigError, DataError
from ultrasam.finetune.base import Base, read_base
from ultrasam.finetune.config_text import Name, Section
from ultrasam.finetune.data import IMAGE_FOLDERS, SPLITS
from ultrasam.finetune.sections import RATES, runtime_sections, schedule_sections

METHODS = ("full", "decoder", "lora")
# A head alone stands a larger rate than an encoder.
HEAD_RATE = 1e-3


@dataclass(frozen=True)
class Sides:
    """Training, validation and test data.

    Attributes:
        root: folder that ``ann_file`` is relative to.
        prefix: folder of the images below ``root``, "" for the same.
        sides: arguments of the dataset, by "train", "val" and "test"; without the ones that there are no data for.
    """

    root: Path
    prefix: str
    sides: Mapping[str, Mapping[str, Any]]

    def path(self, side: str) -> Path:
        """Return the file or folder of a side."""
        return self.root / str(self.sides[side]["ann_file"])


def add_split_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of data without splits, and of patients in file names."""
    parser.add_argument("--test-share", type=float, default=0.2, help="share of the patients held out (default: 0.2)")
    parser.add_argument("--val-share", type=float, default=0.1, help="share to validate with (default: 0.1)")
    parser.add_argument("--group-column", help="column of a CSV table that names the patient or video")
    parser.add_argument(
        "--group-pattern", help="regular expression whose first group is the patient or video in a file name"
    )


def find_sides(data: str, options: argparse.Namespace, folders: bool) -> Sides:
    """Find the data of each side.

    Args:
        data: a COCO file or CSV table, which is divided by patients; a folder with ``train.json`` or ``train.csv``
            (and ``val``, ``test``); with ``folders`` also one with ``train/CLASS/...``, or with ``CLASS/...``.
        options: of ``add_split_arguments``.
        folders: whether class folders are data.

    Raises:
        DataError: there is nothing of that kind.
    """
    root = Path(data).expanduser().resolve()
    if root.is_file() and root.suffix.lower() in (".json", ".csv"):
        return Sides(*image_place(root), divided(root.name, options))
    if not root.is_dir():
        raise DataError(f"{data} is no folder, COCO file (.json) or table (.csv); check the path")
    for place in (root, root / "annotations"):
        found = {split: file_of(place, split) for split in SPLITS}
        train = found["train"]
        if train is not None:
            base, prefix = image_place(train)
            return Sides(base, prefix, {s: {"ann_file": p.name} for s, p in found.items() if p is not None})
    if folders and (root / "train").is_dir():
        return Sides(root, "", {split: {"ann_file": split} for split in SPLITS if (root / split).is_dir()})
    if folders and any(path.is_dir() for path in root.iterdir()):
        return Sides(root.parent, "", divided(root.name, options))
    wanted = ", nor class folders" if folders else ""
    raise DataError(f"{root} holds no train.json or train.csv, nor does {root / 'annotations'}{wanted}; name them so")


def divided(name: str, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the parts of one source; without validation where its share is 0."""
    shares = dict(test_share=options.test_share, val_share=options.val_share)
    sides = [side for side in SPLITS if side != "val" or options.val_share > 0]
    return {side: {"ann_file": name, "part": side, **shares} for side in sides}


def file_of(place: Path, split: str) -> Path | None:
    """Return the file of a split: that with classes rather than the class-agnostic one.

    Raises:
        DataError: there are several.
    """
    found = [path for name in ("", ".*") for kind in ("json", "csv") for path in place.glob(f"{split}{name}.{kind}")]
    chosen = sorted({path for path in found if ".agnostic." not in path.name})
    if len(chosen) > 1:
        names = ", ".join(path.name for path in chosen)
        raise DataError(f"{place} holds more than one file of the split {split!r} ({names}); name one of them")
    return chosen[0] if chosen else None


def image_place(path: Path) -> tuple[Path, str]:
    """Return the folder of an annotation file, and where below it, or above it, its images' names start.

    Raises:
        DataError: the first image is nowhere.
    """
    if path.suffix.lower() == ".csv":
        return path.parent, ""
    images = load_json(path).get("images") or [{}]
    name = str(images[0].get("file_name"))
    for folder in IMAGE_FOLDERS:
        if (path.parent / folder / name).is_file():
            return path.parent, folder
    raise DataError(
        f"the image {name!r} of {path} is neither in {path.parent} nor in its folder images, nor up to two folders "
        "above; write file names relative to one of these"
    )


def encoder_section(options: argparse.Namespace, base: Base) -> dict[str, Any]:
    """Return the model's arguments for the encoder: all of it trains, none, or an adapter.

    Raises:
        ConfigError: another method.
    """
    require_method(options, METHODS)
    backbone = dict(
        type="SamBackbone", arch=base.arch, image_size=base.image_size, weights=base.weights,
        preprocessing=plain_pixels(base), frozen=options.method == "decoder",
    )  # fmt: skip
    adapter = dict(method="lora", rank=options.rank, alpha=float(options.rank), dropout=0.1)
    return dict(backbone=backbone, **(dict(adapter=adapter) if options.method == "lora" else {}))


def require_method(options: argparse.Namespace, methods: Sequence[str]) -> None:
    """Refuse a method that the task does not have.

    Raises:
        ConfigError: names those that it has.
    """
    if options.method not in methods:
        raise ConfigError(
            f"--method {options.method} is not for the task {options.task}; use --method {' or '.join(methods)}"
        )


def plain_pixels(base: Base) -> dict[str, Any] | None:
    """Return the preprocessing of the weights as a configuration writes it."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in base.preprocessing.items()} or None


def common_sections(
    options: argparse.Namespace, sides: Sides, dataset: Mapping[str, Any], metric: str, prompts: Mapping[str, str]
) -> list[Section]:
    """Return loaders, metrics, schedule and runtime.

    Args:
        options: of the command line.
        sides: where the data are.
        dataset: arguments of the dataset besides those of ``sides``.
        metric: type of the metric.
        prompts: ``prompt`` of the dataset, by side; empty where there are no prompts.
    """
    in_order, shuffled = dict(type="DefaultSampler", shuffle=False), dict(type="ResumableInfiniteSampler")
    sections = []
    for side in SPLITS:
        found = sides.sides.get(side)
        if found is None:
            continue
        training = side == "train"
        arguments: dict[str, Any] = {
            **dataset, "data_root": Name("data_root"), "img_prefix": sides.prefix, **found,
            "pipeline": Name("train_pipeline" if training else "test_pipeline"),
            **({"prompt": prompts[side]} if prompts else {}), **({} if training else {"test_mode": True}),
        }  # fmt: skip
        loader = dict(
            batch_size=options.batch_size, num_workers=options.workers, persistent_workers=options.workers > 0,
            sampler=shuffled if training else in_order, dataset=arguments,
        )  # fmt: skip
        sections.append(Section(f"{side}_dataloader", loader))
        if not training:
            evaluator = dict(type=metric, **(dict(resamples=0) if side == "val" else {}))
            sections.append(Section(f"{side}_evaluator", evaluator))
    options = copy.copy(options)
    options.lr = options.lr or (HEAD_RATE if options.method == "decoder" else RATES[options.method])
    hooks = [dict(type="LearnFromDataHook"), dict(type="WriteResultsHook")]
    return [*sections, *schedule_sections(options, "val" in sides.sides), *runtime_sections(options, hooks, None)]


def fit_step(base: Base) -> dict[str, Any]:
    """Return the pipeline's step that resizes images as the weights need it."""
    from ultrasam.finetune.segment import build_sam_preprocessing

    pixels = build_sam_preprocessing(base)
    return dict(
        type="FitSquare", square=base.image_size, mode=pixels["mode"], interpolation=pixels["interpolation"]
    )


def start(options: argparse.Namespace, folders: bool) -> tuple[Sides, Base]:
    """Return the data and the weights of the command line."""
    return find_sides(options.data, options, folders), read_base(options.weights)


def run_tests(
    config: Path, checkpoint: Path, out: Path, prompts: Sequence[str], shown: Sequence[str], prefix: str
) -> int:
    """Test, once for each prompt, and print the scores with their intervals; return an exit status.

    Args:
        config: the configuration.
        checkpoint: to test.
        out: folder to write below.
        prompts: of the tests; "" for one without prompts.
        shown: scores to print.
        prefix: of their names in ``metrics.json``.
    """
    from ultrasam.engine.test import main as test

    lines = []
    for prompt in prompts:
        folder = out / (f"test_{prompt}" if prompt else "test")
        chosen = ["--prompt", prompt] if prompt else []
        status = test([str(config), str(checkpoint), *chosen, "--out", str(folder)])
        if status:
            return status
        found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["metrics"]
        for name in shown:
            value, low, high = (found.get(f"{prefix}/{name}{end}") for end in ("", "_low", "_high"))
            ends = "" if low is None or high is None else f"  ({low:.3f} to {high:.3f})"
            lines.append(f"{prompt:<6} {name:<10} {'undefined' if value is None else f'{value:.3f}'}{ends}\n")
    sys.stdout.write("".join(lines))
    return 0
