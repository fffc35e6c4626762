"""The task "classify": one class for each image."""

from __future__ import annotations

import argparse
from pathlib import Path

from ultrasam.datasets.classes_sources import LabelSource, labels_from_coco, labels_from_folders, labels_from_table
from ultrasam.finetune.config_text import Section
from ultrasam.finetune.labelled import (
    Sides,
    add_split_arguments,
    common_sections,
    encoder_section,
    fit_step,
    run_tests,
    start,
)


class ClassifyTask:
    """See ``ultrasam.finetune.tasks.Task``."""

    title = "classification of images"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of the data."""
        add_split_arguments(parser)
        parser.add_argument("--rank", type=int, default=16, help="of LoRA (default: 16)")
        parser.add_argument("--file-column", default="file", help="column of a CSV table (default: file)")
        parser.add_argument("--class-column", default="class", help="column of a CSV table (default: class)")

    def sections(self, options: argparse.Namespace) -> list[Section]:
        """Return the configuration; the classes are read from the training data."""
        sides, base = start(options, folders=True)
        classes = labels_of(sides, options).classes
        model = dict(
            type="ImageClassifier", classes=classes, **encoder_section(options, base),
            class_loss=dict(form="cross_entropy", class_weights="balanced"),
        )  # fmt: skip
        load, fit, pack = dict(type="LoadPicture"), fit_step(base), dict(type="PackClass")
        dataset = dict(
            type="ClassDataset", classes=classes, file_column=options.file_column, class_column=options.class_column,
            group_column=options.group_column, group_pattern=options.group_pattern,
        )  # fmt: skip
        return [
            Section("data_root", str(sides.root)),
            Section("model", model, "Classes of unequal size count the same: class_weights."),
            Section("train_pipeline", [load, dict(type="FlipHorizontal", prob=0.5), fit, pack]),
            Section("test_pipeline", [load, fit, pack]),
            *common_sections(options, sides, dataset, "ClassificationMetric", {}),
        ]

    def test(self, config: Path, checkpoint: Path, out: Path, options: argparse.Namespace) -> int:
        """Test, and print the scores."""
        return run_tests(config, checkpoint, out, [""], ("f1", "auc", "accuracy"), "classification")


TASK = ClassifyTask()


def labels_of(sides: Sides, options: argparse.Namespace) -> LabelSource:
    """Return images and classes of the training source.

    Raises:
        DataError: it cannot be used.
    """
    path, root = sides.path("train"), sides.root / sides.prefix
    if path.suffix.lower() == ".json":
        return labels_from_coco(path, root, "class", "error")
    if path.suffix.lower() == ".csv":
        columns = options.file_column, options.class_column, options.group_column, options.group_pattern
        return labels_from_table(path, root, *columns)
    return labels_from_folders(path, options.group_pattern)
