"""The task "regress": one value for each image."""

from __future__ import annotations

import argparse
from pathlib import Path

from ultrasam.datasets.values_scale import QUANTITIES
from ultrasam.finetune.config_text import Section
from ultrasam.finetune.labelled import add_split_arguments, common_sections, encoder_section, fit_step, run_tests, start


class RegressTask:
    """See ``ultrasam.finetune.tasks.Task``."""

    title = "regression of a value for each image"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of the data and the loss."""
        add_split_arguments(parser)
        parser.add_argument("--rank", type=int, default=16, help="of LoRA (default: 16)")
        parser.add_argument("--value", required=True, help="column of the table, or key of the image records")
        parser.add_argument(
            "--quantity", choices=QUANTITIES, default="plain", help="how the value changes with the image's size"
        )
        parser.add_argument("--unit", default="", help="of the value, for reports")
        parser.add_argument("--file-column", default="file", help="column of a CSV table (default: file)")
        parser.add_argument("--spacing-column", help="column of a CSV table with the pixel size in mm")
        parser.add_argument("--loss", choices=("l1", "huber", "gaussian"), default="huber", help="(default: huber)")

    def sections(self, options: argparse.Namespace) -> list[Section]:
        """Return the configuration."""
        sides, base = start(options, folders=False)
        model = dict(
            type="ImageRegressor", quantity=options.quantity, loss=options.loss, **encoder_section(options, base)
        )
        load, fit, pack = dict(type="LoadPicture"), fit_step(base), dict(type="PackValue")
        dataset = dict(
            type="ValueDataset", value=options.value, quantity=options.quantity, unit=options.unit,
            file_column=options.file_column, spacing_column=options.spacing_column,
            group_column=options.group_column, group_pattern=options.group_pattern,
        )  # fmt: skip
        return [
            Section("data_root", str(sides.root)),
            Section("model", model, "Mean and deviation of the values are taken from the training data."),
            Section("train_pipeline", [load, dict(type="FlipHorizontal", prob=0.5), fit, pack]),
            Section("test_pipeline", [load, fit, pack]),
            *common_sections(options, sides, dataset, "RegressionMetric", {}),
        ]

    def test(self, config: Path, checkpoint: Path, out: Path, options: argparse.Namespace) -> int:
        """Test, and print the errors."""
        return run_tests(config, checkpoint, out, [""], ("mae", "rmse", "r2"), "regression")


TASK = RegressTask()
