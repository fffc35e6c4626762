"""The command line of the report."""

from __future__ import annotations

import argparse
from pathlib import Path

from data_prep.report.figure import draw_figure2
from data_prep.report.page import page
from data_prep.report.summary import summarize
from data_prep.report.terminal import table_text


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``report`` to the commands of ``python -m data_prep``."""
    job = commands.add_parser("report", help="what is converted: a table, a page with pictures, the paper's Figure 2")
    job.set_defaults(run=report)
    job.add_argument("root", type=Path, metavar="ROOT", help="folder of converted datasets")
    job.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: ROOT/report)")
    job.add_argument("--sample", type=_count, default=6, metavar="N",
                     help="example images per set; 0 for none (default: %(default)s)")


def report(options: argparse.Namespace) -> int | None:
    """Print the composition and write the page and the figure.

    Raises:
        DataError: nothing is converted, or a file is not as ``convert`` writes it; nothing is written then.
    """
    root: Path = options.root
    out: Path = options.out or root / "report"
    summary = summarize(root, options.sample)
    # All is made before anything is written, so that a fault leaves the earlier report whole.
    files = {"report.html": page(summary, root.resolve().name).encode("utf-8"), **draw_figure2(summary)}
    out.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        temporary = out / f"{name}.partial"
        temporary.write_bytes(data)
        temporary.replace(out / name)
    print(table_text(summary))
    for row in summary.converted:
        for problem in row.content.problems if row.content else ():
            print(f"{row.slug}: {problem}; convert it again")
    torn = summary.merged.torn
    if torn:
        print(f"{len(torn)} groups are on two sides of the merged files (first: {torn[0]}); merge again")
    print(f"wrote {', '.join(files)} to {out}")
    return None


def _count(text: str) -> int:
    """Return a number of at least 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"at least 0 was expected, found {text}")
    return number
