"""The command ``reproduce``: weights and data in, the paper's tables and figures out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ultrasam.errors import ConfigError, UltraSamError
from ultrasam.reproduce.layout import OURS, PUBLISHED, Table, select
from ultrasam.reproduce.tables import TABLES, table2

if TYPE_CHECKING:
    from ultrasam.reproduce.fill import Filled
    from ultrasam.reproduce.runs import Setting

FIGURE2, FIGURE3 = "figure2", "figure3"


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="reproduce.py",
        description="Print a table or draw a figure of the paper: its numbers, ours, the difference, 95 % intervals. "
        "Tests that are missing are run; what cannot be run is listed with what to get.",
    )
    parser.add_argument("table", choices=sorted([*TABLES, FIGURE2, FIGURE3]), help="what to reproduce")
    parser.add_argument("--data", type=Path, required=True, metavar="ROOT", help="folder of the prepared data")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write (default: work_dirs/reproduce)")
    parser.add_argument(
        "--weights", nargs="+", action="extend", default=[], metavar="NAME=FILE",
        help="weight files or work directories of trainings, or a folder of such",
    )  # fmt: skip
    parser.add_argument(
        "--results", nargs="+", action="extend", default=[], metavar="PART=FOLDER",
        help="result folders of tools/test.py instead of tests; PART is ROW/GROUP, for figure3 the name of a column",
    )  # fmt: skip
    parser.add_argument(
        "--only", nargs="+", action="extend", default=[], metavar="WORD",
        help="fill these rows, prompts or data sets only, such as: box sam bus_bra",
    )  # fmt: skip
    parser.add_argument(
        "--protocol", choices=(OURS, PUBLISHED, "both"), default=OURS,
        help="published: centroid clicks and the released order of masks (default: ours)",
    )  # fmt: skip
    parser.add_argument("--csv", type=Path, metavar="FILE", help="figure4: numbers from elsewhere")
    parser.add_argument("--images", type=int, default=2, help="figure3: images of each data set (default: 2)")
    parser.add_argument(
        "--cases", choices=("median", "worst", "best"), default="median", help="figure3: which images, by Dice"
    )
    parser.add_argument(
        "--prompt", choices=("point", "box"), default="point", help="figure3: prompt (default: point)"
    )
    parser.add_argument(
        "--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="values of every configuration to change",
    )  # fmt: skip
    options = parser.parse_args(argv)
    options.out = options.out or Path("work_dirs/reproduce")
    return options


def _given_folders(texts: Sequence[str]) -> dict[str, Path]:
    """Read the ``PART=FOLDER`` arguments."""
    found: dict[str, Path] = {}
    for text in texts:
        part, equals, folder = text.partition("=")
        if not equals or not part or not folder or part in found:
            raise ConfigError(f"--results takes PART=FOLDER, each part once, but got {text!r}")
        found[part] = Path(folder)
    return found


def _check(options: argparse.Namespace) -> None:
    """Refuse what does not go together, before anything is run.

    Raises:
        ConfigError: it says what.
    """
    if not options.data.is_dir():
        raise ConfigError(f"--data {options.data} is no folder; give the folder that `python -m data_prep` wrote")
    if options.csv is not None and options.table != "figure4":
        raise ConfigError(f"--csv is for figure4, not {options.table}; leave it away")
    if options.table == FIGURE2:
        for name in ("weights", "results", "only", "cfg_options"):
            if getattr(options, name):
                flag = "--" + name.replace("_", "-")
                raise ConfigError(f"{flag} is not for figure2, which shows the annotation files alone; leave it away")
    if options.images < 1:
        raise ConfigError(f"--images must be at least 1, but is {options.images}")


def reproduce(options: argparse.Namespace) -> int:
    """Do what the command line says.

    Returns:
        Number of cells that failed.

    Raises:
        UltraSamError: something given cannot be used.
    """
    from ultrasam.reproduce.render import counts, terminal, write_table
    from ultrasam.reproduce.runs import Setting
    from ultrasam.reproduce.weights import given_weights

    _check(options)
    if options.table == FIGURE2:
        return _figure2(options)
    setting = Setting(options.data, options.out, given_weights(options.weights), tuple(options.cfg_options))
    given = _given_folders(options.results)
    if options.table == FIGURE3:
        filled, paths = _figure3(options, setting, given)
    else:
        filled = _filled(TABLES[options.table](), options, setting, given)
        paths = write_table(filled, setting.out)
        if options.table == "figure4":
            from ultrasam.reproduce.figure4 import draw_figure4

            paths += draw_figure4(filled, setting.out)
    if filled.cells:
        print(terminal(filled))
    for path in paths:
        print(f"wrote {path}")
    if not paths:
        print(f"{options.table} is not drawn: there is no result to show")
    print(f"{counts(filled)}; tests run: {len(setting.counted)}" if filled.cells else setting.out)
    return filled.count("failed")


def _figure2(options: argparse.Namespace) -> int:
    """Draw Figure 2; nothing of it can fail alone."""
    from ultrasam.reproduce.figure2 import caption, draw_figure2, terminal

    found, paths = draw_figure2(options.data, options.out)
    print(terminal(found))
    print(caption(found))
    for path in paths:
        print(f"wrote {path}")
    return 0


def _filled(table: Table, options: argparse.Namespace, setting: Setting, given: dict[str, Path]) -> Filled:
    """Fill a table; for Figure 4 also from the file of numbers."""
    from ultrasam.reproduce.figure4 import read_points, with_points
    from ultrasam.reproduce.fill import fill

    protocols = (OURS, PUBLISHED) if options.protocol == "both" else (options.protocol,)
    points = {} if options.csv is None else read_points(options.csv)
    chosen = select(table, options.only, protocols)
    if not chosen:
        raise ConfigError(
            f"{table.name} has nothing that --only {' '.join(options.only)} and --protocol {options.protocol} choose"
        )
    filled = fill(table, chosen, setting, given)
    return with_points(filled, points) if points else filled


def _figure3(
    options: argparse.Namespace, setting: Setting, given: dict[str, Path]
) -> tuple[Filled, list[Path]]:
    """Draw Figure 3 of the models of Table 2 that have weights, and of result folders."""
    from ultrasam.evaluation.results import read_per_object
    from ultrasam.reproduce.figure3 import Model, draw_figure3
    from ultrasam.reproduce.fill import Filled

    table = replace(table2(), name=FIGURE3, title="Figure 3: the models of Table 2 (%)")
    options.only = [*options.only, options.prompt]
    # Result folders alone need no weights, so nothing is open then.
    alone = bool(given) and not setting.weights
    filled = Filled(table, ()) if alone else _filled(table, options, setting, {})
    folders: dict[str, dict[str, Path]] = {}
    # As in the paper, what was trained on these data stands last.
    for cell in sorted(filled.cells, key=lambda cell: cell.row.labels[2] == "FT"):
        if cell.folder is not None:
            folders.setdefault(cell.row.labels[1], {})[table.columns[cell.column].group] = cell.folder
    models = [Model(name, found) for name, found in folders.items()]
    for name, folder in given.items():
        slugs = sorted({row.key[0] for row in read_per_object(folder)})
        models.append(Model(name, dict.fromkeys(slugs, folder)))
    return filled, draw_figure3(models, setting.data, setting.out, images=options.images, cases=options.cases)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the program's name; those of the process where None.

    Returns:
        Exit status: 0 also where cells are open, 2 where something given cannot be used.
    """
    options = parse_arguments(argv)
    try:
        failed = reproduce(options)
    except UltraSamError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if failed:
        print(f"error: cells failed: {failed}; the sentences above say why", file=sys.stderr)
        return 2
    return 0
