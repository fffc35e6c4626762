"""``ultrasam info FILE ...``: short for ``ultrasam checkpoint info``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ultrasam.cli.checkpoint import add_info_options
from ultrasam.errors import UltraSamError


def main(argv: Sequence[str] | None = None) -> int:
    """Print what weight files hold; return 2 where one cannot be read."""
    parser = argparse.ArgumentParser(prog="ultrasam info", description="Say what weight files hold.")
    add_info_options(parser)
    options = parser.parse_args(argv)
    try:
        return int(options.run(options))
    except UltraSamError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
