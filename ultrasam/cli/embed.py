"""``ultrasam embed``: encoder features of images and cine loops, for one's own head."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ultrasam.cli.errors import complain, guarded


def build_parser() -> argparse.ArgumentParser:
    """Return the options of the command."""
    parser = argparse.ArgumentParser(
        prog="ultrasam embed",
        description="Write the encoder's features of every frame to one safetensors file: a vector each, and its map "
        "where that is asked for. Names are those of the files, from the folder that was given, and #FRAME.",
    )
    parser.add_argument("scans", nargs="+", metavar="SCAN", help="files, folders or patterns such as 'scans/*.png'")
    parser.add_argument("--out", required=True, metavar="FILE", help="file ending in .safetensors")
    parser.add_argument(
        "--weights", metavar="W", help="weight file or name (default: the model that comes with the package)"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: cuda where there is a GPU)")
    parser.add_argument("--maps", action="store_true", help="also write the map of each frame, float16")
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="every Nth frame of cines and volumes (default: %(default)s)"
    )
    parser.add_argument(
        "--batch", type=int, default=8, metavar="N", help="frames encoded at a time (default: %(default)s)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write features; return 0, or 2 where a file could not be used."""
    options = build_parser().parse_args(argv)
    return guarded(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from ultrasam.checkpoints.network import load_network
    from ultrasam.inference.embed import embed_files
    from ultrasam.inference.model import UltraSam, choose_device
    from ultrasam.io.scan import listed_scans

    files = listed_scans(options.scans)
    network = load_network(options.weights, device=choose_device(options.device))
    report = embed_files(
        UltraSam(network),
        files,
        options.out,
        maps=options.maps,
        every=options.every,
        batch=options.batch,
        weights_sha256=network.sha256,
        say=lambda line: print(line, flush=True),
    )
    for failure in report.failures:
        complain(str(failure))
    missed = f", {len(report.failures)} could not be used (see above)" if report.failures else ""
    size = Path(options.out).stat().st_size / 1e6
    print(f"wrote features of {report.frames} frames of {report.files} files{missed} to {options.out} ({size:.1f} MB)")
    return 2 if report.failures else 0
