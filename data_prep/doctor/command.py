"""The command ``doctor``."""

from __future__ import annotations

import argparse
from pathlib import Path

from data_prep.doctor.diagnose import Diagnosis, diagnose_coco
from data_prep.doctor.mask_folder import diagnose_folder
from data_prep.doctor.publish import write_copy
from data_prep.doctor.report import print_table
from data_prep.folders.fresh import check_free
from ultrasam.errors import ConfigError


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add ``doctor`` to the commands."""
    parser = commands.add_parser(
        "doctor", help="why a COCO file or a folder of images and masks will fail, and the repaired copy",
        description="Exit status: 0 nothing to repair, or everything repaired with --fix; 1 faults found or left; "
                    "2 the input cannot be examined.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("path", type=Path, metavar="FILE.json|FOLDER", help="COCO file, or folder of images and masks")
    parser.add_argument("--images", type=Path, metavar="DIR",
                        help="folder that the file names start from (default: found near the file); with a FOLDER of "
                             "masks, the folder of their images")
    parser.add_argument("--fix", type=Path, metavar="OUT",
                        help="write the repaired copy into this new folder: annotations.json, images/ (hard links "
                             "where nothing changed), and left_out.json with every record that is not in the copy")
    parser.add_argument("--boxes-to-masks", action="store_true",
                        help="draw the boxes of objects without a mask as rectangles (default: set them aside)")
    parser.add_argument("--rescale", action="store_true",
                        help="where the recorded size is not that of the file but has its shape, scale the shapes to "
                             "the file (default: only when they prove to be drawn at the recorded size)")


def run(options: argparse.Namespace) -> int:
    """Examine, print the table, and write the repaired copy where it is asked for.

    Returns:
        0 if there is nothing to repair or nothing was left, else 1.

    Raises:
        DataError: the input cannot be examined.
        ConfigError: a folder that is not there, or one to write to that holds something.
    """
    if options.fix is not None:
        check_free(options.fix)
    diagnosis = _diagnose(options)
    report = diagnosis.report
    print(diagnosis.summary)
    if report.findings:
        print_table(report.rows(fixed=options.fix is not None))
    if options.fix is None:
        print(f"{report.total} faults found, nothing was written; --fix OUT writes the repaired copy"
              if report.findings else "nothing needs repair")
        return 1 if report.findings else 0
    if not diagnosis.images:
        print(f"nothing was written, as no image is left ({_first_reason(diagnosis)}); "
              "name the folder of the images with --images, or get the files again")
        return 1
    write_copy(options.fix, diagnosis.content, diagnosis.images, diagnosis.left_out)
    print(_last_line(diagnosis, options.fix))
    return 1 if report.remaining else 0


def _diagnose(options: argparse.Namespace) -> Diagnosis:
    path: Path = options.path
    if path.is_dir() and options.images is None and (path / "annotations.json").is_file():
        path = path / "annotations.json"
    if path.is_dir():
        if options.boxes_to_masks or options.rescale:
            raise ConfigError(f"{path} is a folder of images and masks; --boxes-to-masks and --rescale are for COCO "
                              "files, leave them out or give the JSON file")
        return diagnose_folder(path, options.images)
    return diagnose_coco(path, options.images, boxes_to_masks=options.boxes_to_masks, rescale=options.rescale)


def _first_reason(diagnosis: Diagnosis) -> str:
    left = diagnosis.left_out.records.get("images") or diagnosis.left_out.records.get("masks")
    return f"the first was left out because {left[0]['reason']}" if left else "there is no pair"


def _last_line(diagnosis: Diagnosis, out: Path) -> str:
    """Say what was written and where."""
    counts = {kind: len(diagnosis.content[kind]) for kind in ("images", "annotations", "categories")}
    written = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    if not diagnosis.report.findings:
        return f"nothing needs repair; wrote a copy to {out} ({written})"
    asides = sum(len(records) for records in diagnosis.left_out.records.values())
    more = f"; {asides} records left out, see {out / 'left_out.json'}" if asides else ""
    return f"wrote {out} ({written}){more}"
