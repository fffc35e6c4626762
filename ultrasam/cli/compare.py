"""The verb ``compare``: two result folders, paired object by object."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ultrasam.errors import UltraSamError

_DISTANCES = ("hd95", "assd", "hd95_mm", "assd_mm")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; return the exit status: 0, or 2 after an error."""
    from ultrasam.evaluation.compare import compare_folders, write_comparison

    parser = argparse.ArgumentParser(
        prog="ultrasam compare",
        description="Compare two result folders of tools/test.py on the same objects, second minus first.",
    )
    parser.add_argument("first", type=Path, help="folder that tools/test.py --out wrote")
    parser.add_argument("second", type=Path, help="folder of the other model")
    parser.add_argument("--out", type=Path, metavar="FILE.csv", help="also write the table to this file")
    parser.add_argument("--seed", type=int, default=0, help="of resampling and permutation (default: 0)")
    options = parser.parse_args(argv)
    try:
        found = compare_folders(options.first, options.second, seed=options.seed)
        print(f"{'score':<14}{'difference':>12}   {'95 % interval':<22}{'p':>8}")
        for name, item in found.items():
            digits = 2 if name in _DISTANCES else 4
            interval = f"{item.low:+.{digits}f} to {item.high:+.{digits}f}"
            print(f"{name:<14}{item.difference:>+12.{digits}f}   {interval:<22}{item.p_value:>8.4f}")
        some = next(iter(found.values()))
        print(f"{some.objects} objects of {some.groups} patients or videos; {options.second} minus {options.first}")
        if options.out is not None:
            write_comparison(options.out, found)
            print(f"wrote {options.out}")
    except UltraSamError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
