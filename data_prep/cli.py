"""The command ``python -m data_prep``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.catalogue import catalogue, find_converter, state
from data_prep.collection.prepare import add_parser as add_prepare
from data_prep.doctor.command import add_parser as add_doctor
from data_prep.folders.command import add_parser as add_folders
from data_prep.pipeline import convert
from data_prep.report.command import add_parser as add_report
from data_prep.splits import SPLITS, SplitPlan
from ultrasam.errors import UltraSamError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0, or 2 after an error, which is printed as one sentence."""
    options = _parser().parse_args(arguments)
    try:
        status: int | None = options.run(options)
    except (UltraSamError, OSError) as error:
        print(f"data_prep: error: {error}", file=sys.stderr)
        return 2
    return status or 0


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m data_prep", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="the datasets that can be converted")
    listing.set_defaults(run=_list)
    listing.add_argument("--out", type=Path, metavar="ROOT", help="also say what is converted in this folder")
    job = commands.add_parser("convert", help="turn the raw files of one dataset into COCO files")
    job.set_defaults(run=_convert)
    job.add_argument("dataset", help="slug, see list")
    job.add_argument("--source", type=Path, required=True, help="folder or archive of raw files")
    job.add_argument("--out", type=Path, required=True, metavar="ROOT", help="folder of converted datasets")
    job.add_argument("--workers", type=_positive, help="processes (default: one per core)")
    job.add_argument("--keep-going", action="store_true",
                     help="leave out images that are missing or unusable instead of failing at the end")
    job.add_argument("--test-folds", type=int, nargs="+", metavar="K",
                     help="folds of the test side (default: the dataset's own choice)")
    job.add_argument("--train-folds", type=int, nargs="+", metavar="K",
                     help="folds of training and validation (default: all that are not test)")
    job.add_argument("--validation-fraction", type=float, default=SplitPlan.validation_fraction, metavar="F",
                     help="part of the training images for validation, whole patients at a time "
                          "(default: %(default)s)")
    job.add_argument("--seed", type=int, default=SplitPlan.seed, help="of the choice of validation patients")
    for add_parser in (add_prepare, add_doctor, add_report, add_folders):
        add_parser(commands)
    return parser


def _positive(text: str) -> int:
    """Return a number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"at least 1 was expected, found {text}")
    return number


def _list(options: argparse.Namespace) -> None:
    """Print the catalogue."""
    rows = [("slug", "name", "application", "images", "masks", "licence", "state", "link")]
    for slug, converter in catalogue().items():
        info = converter.info
        rows.append((slug, info.name, info.application, str(info.expected.get("images", "?")),
                     str(info.expected.get("masks", "?")), info.licence, state(slug, options.out), info.home))
    _print_table(rows)


def _convert(options: argparse.Namespace) -> None:
    """Convert one dataset and print what was written."""
    plan = SplitPlan(
        test_folds=None if options.test_folds is None else tuple(options.test_folds),
        train_folds=None if options.train_folds is None else tuple(options.train_folds),
        validation_fraction=options.validation_fraction,
        seed=options.seed,
    )
    converter = find_converter(options.dataset)
    manifest: dict[str, Any] = convert(
        converter, options.source, options.out,
        plan=plan, workers=options.workers, keep_going=options.keep_going,
    )
    names = converter.info.categories
    rows = [("split", "images", "masks", "groups", *names)]
    for split in SPLITS:
        counts = manifest["splits"][split]
        rows.append((split, str(counts["images"]), str(counts["masks"]), str(counts["groups"]),
                     *(str(counts["by_category"].get(name, 0)) for name in names)))
    _print_table(rows)
    counts, published = manifest["counts"], manifest["published"]
    differing = [f"{counts[name]} of {number} {name}" for name, number in published.items()
                 if counts[name] != number]
    if differing:
        print(f"not the complete published set: {', '.join(differing)} "
              f"({counts['failed']} images failed, {counts['not_asked_for']} in folds not asked for)")
    if counts["table_disagreements"]:
        print(f"{counts['table_disagreements']} images differ from what the set's tables say of them, "
              "see manifest.json")
    if counts["unused_files"]:
        print(f"{counts['unused_files']} image files of the source belong to no record, see manifest.json")
    print(f"wrote {options.out / converter.info.slug}")


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns of equal width; the first row is the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
