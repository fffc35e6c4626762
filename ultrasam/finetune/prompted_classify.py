"""The task "prompted-classify": the class of the object under a click or in a box."""

from __future__ import annotations

import argparse
from pathlib import Path

from ultrasam.datasets.coco import read_coco
from ultrasam.errors import DataError
from ultrasam.finetune.config_text import Section
from ultrasam.finetune.labelled import common_sections, fit_step, plain_pixels, require_method, run_tests, start

PROMPTS = ("point", "box")


class PromptedClassifyTask:
    """See ``ultrasam.finetune.tasks.Task``."""

    title = "classification of prompted objects"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Set what data with masks do not need: they come with their splits."""
        parser.set_defaults(method="full", test_share=0.2, val_share=0.1)

    def sections(self, options: argparse.Namespace) -> list[Section]:
        """Return the configuration; the classes are the categories of the training file.

        Raises:
            DataError: the data are no COCO files with splits, or have one class.
        """
        require_method(options, ("full", "decoder"))
        sides, base = start(options, folders=False)
        path = sides.path("train")
        if path.suffix.lower() != ".json" or "part" in sides.sides["train"]:
            raise DataError(f"{path}: objects to prompt need masks; give a folder with train.json, val.json, test.json")
        classes = read_coco(path, sides.root / sides.prefix).classes
        if len(classes) < 2:
            raise DataError(f"{path} has the one class {classes[0]!r}; give the file with classes")
        model = dict(
            type="PromptedClassifier", classes=classes, arch=base.arch, image_size=base.image_size,
            preprocessing=plain_pixels(base), weights=base.weights,
            trained_stages=0 if options.method == "decoder" else None,
            class_loss=dict(form="cross_entropy", class_weights="balanced"),
        )  # fmt: skip
        load, fit, pack = dict(type="LoadUltrasound"), fit_step(base), dict(type="PackPromptedClass")
        draw = dict(type="SimulatePrompts", point_share=0.5, box_jitter=0.05)
        dataset = dict(type="PromptedClassDataset", classes=classes)
        return [
            Section("data_root", str(sides.root)),
            Section("model", model, "trained_stages: how many of the last stages of E_g train; None for all."),
            Section("train_pipeline", [load, dict(type="FlipHorizontal", prob=0.5), fit, draw, pack]),
            Section("test_pipeline", [load, fit, dict(type="SimulatePrompts"), pack]),
            *common_sections(
                options, sides, dataset, "ClassificationMetric", {"train": "train", "val": "point", "test": "point"}
            ),
        ]

    def test(self, config: Path, checkpoint: Path, out: Path, options: argparse.Namespace) -> int:
        """Test with points and with boxes, and print the scores."""
        return run_tests(config, checkpoint, out, PROMPTS, ("f1", "auc", "accuracy"), "classification")


TASK = PromptedClassifyTask()
