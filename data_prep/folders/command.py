"""The commands ``from-masks`` and ``to-masks``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from data_prep.doctor.report import print_table
from data_prep.folders.from_masks import Meaning, convert_folders
from data_prep.folders.labels import TABLE, parse_colours, parse_labels
from data_prep.folders.to_masks import write_masks
from data_prep.splits import SPLITS


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add ``from-masks`` and ``to-masks`` to the commands."""
    _add_from_masks(commands)
    _add_to_masks(commands)


def _add_from_masks(commands: argparse._SubParsersAction) -> None:
    job = commands.add_parser("from-masks", help="turn your own folders of images and masks into COCO files")
    job.set_defaults(run=run_from_masks)
    job.add_argument("images", type=Path, metavar="IMAGES", help="folder of images")
    job.add_argument("masks", type=Path, metavar="MASKS",
                     help="folder of masks with the names of the images; a black mask says that there is no object")
    job.add_argument("--out", type=Path, required=True, metavar="ROOT", help="folder of converted datasets")
    job.add_argument("--slug", default="", metavar="NAME",
                     help="name of the set (default: that of the folder that holds IMAGES and MASKS)")
    job.add_argument("--suffix", default="", metavar="TEXT",
                     help="what mask names have after the image's name, such as _mask; further masks of an image are "
                          "then numbered _mask_1, _mask_2")
    meaning = job.add_mutually_exclusive_group()
    meaning.add_argument("--labels", metavar="1=liver,2=mass",
                         help=f"what the values of masks mean, or the {TABLE} of to-masks (default: two-valued masks "
                              "of one category 'object')")
    meaning.add_argument("--colours", metavar="255,0,0=liver,...", help="what the colours of masks mean")
    meaning.add_argument("--threshold", type=int, metavar="T",
                         help="for JPEG or soft masks: values above T are foreground")
    job.add_argument("--instances", choices=("components", "values", "single"), default="components",
                     help="an object is a connected region, a value, or all of a category in a mask (default: "
                          "%(default)s)")
    job.add_argument("--min-area", type=int, default=1, metavar="N", help="drop regions of fewer pixels, counted")
    job.add_argument("--groups", default="", metavar="REGEX",
                     help="first group of this expression, found in the image's path below IMAGES, is its patient or "
                          "video, which is never divided between splits (default: every image by itself)")
    job.add_argument("--val-fraction", type=float, default=0.05, metavar="F",
                     help="part of the images for validation (default: %(default)s)")
    job.add_argument("--test-fraction", type=float, default=0.0, metavar="F",
                     help="part of the images for test (default: %(default)s)")
    job.add_argument("--seed", type=int, default=0, help="of the choice of groups")
    job.add_argument("--workers", type=_positive, help="processes (default: one per core)")
    job.add_argument("--keep-going", action="store_true", help="leave out images that cannot be converted")


def _add_to_masks(commands: argparse._SubParsersAction) -> None:
    job = commands.add_parser("to-masks", help="write the objects of a COCO file as mask images")
    job.set_defaults(run=run_to_masks)
    job.add_argument("file", type=Path, metavar="FILE.json", help="COCO file; its images are not needed")
    job.add_argument("out", type=Path, metavar="OUT", help="new folder for the PNG files and the table of values")
    job.add_argument("--kind", choices=("label", "instance", "binary"), default="label",
                     help="values are categories 1, 2, ..., objects 1, 2, ... of the image, or 255 (default: "
                          "%(default)s)")
    job.add_argument("--suffix", default="_mask", metavar="TEXT",
                     help="ending of the mask names (default: %(default)s); with '' objects must not overlap")


def run_from_masks(options: argparse.Namespace) -> None:
    """Convert the folders and print what was written."""
    meaning = Meaning(
        labels=None if options.labels is None else parse_labels(options.labels),
        colours=None if options.colours is None else parse_colours(options.colours),
        threshold=options.threshold, instances=options.instances, min_area=options.min_area,
    )
    manifest: dict[str, Any] = convert_folders(
        options.images, options.masks, options.out, meaning, slug=options.slug, suffix=options.suffix,
        groups=options.groups, val_fraction=options.val_fraction, test_fraction=options.test_fraction,
        seed=options.seed, workers=options.workers, keep_going=options.keep_going,
    )
    rows: list[tuple[str, ...]] = [("split", "images", "masks", "groups", *meaning.categories)]
    for split in SPLITS:
        counts = manifest["splits"][split]
        rows.append((split, str(counts["images"]), str(counts["masks"]), str(counts["groups"]),
                     *(str(counts["by_category"].get(name, 0)) for name in meaning.categories)))
    print_table(rows)
    dropped = manifest["changes"].get("components_dropped", 0)
    if dropped:
        print(f"{dropped} regions of fewer than {options.min_area} pixels were dropped")
    if not options.groups:
        print("every image is a group of its own; if several are of one patient or video, name them with --groups")
    print(f"wrote {options.out / manifest['dataset']}")


def run_to_masks(options: argparse.Namespace) -> None:
    """Write the masks and print where."""
    images, files = write_masks(options.file, options.out, options.kind, options.suffix)
    more = f" ({files - images} more than images, as objects overlap)" if files > images else ""
    print(f"wrote {options.out} ({files} masks of {images} images{more}, {TABLE})")


def _positive(text: str) -> int:
    """Return a number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"at least 1 was expected, found {text}")
    return number
