"""``ultrasam info FILE``: what a weight file is."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from ultrasam.checkpoints import read_weights, resolve_weights, sha256_of
from ultrasam.errors import UltraSamError


def main(argv: Sequence[str] | None = None) -> int:
    """Print format, architecture, hash and card of a weight file; return 2 where it cannot be read."""
    parser = argparse.ArgumentParser(prog="ultrasam info", description="Say what a weight file holds.")
    parser.add_argument("file", help="a weight file of any format that UltraSam reads, or a name (litemedsam)")
    options = parser.parse_args(argv)
    try:
        path = resolve_weights(options.file)
        weights = read_weights(path)
    except UltraSamError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"file          {path}")
    print(f"sha256        {sha256_of(path)}")
    print(f"format        {weights.format}")
    print(f"architecture  {weights.arch.name}")
    print(f"residual      {weights.mlp_residual}")
    print(f"parameters    {sum(value.numel() for value in weights.state.values()):,}")
    print("card          " + json.dumps(weights.card, indent=2, sort_keys=True, default=str).replace("\n", "\n  "))
    return 0
