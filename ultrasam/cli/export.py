"""``ultrasam export``: encoder and decoder as ONNX or TorchScript."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ultrasam.cli.errors import guarded


def build_parser() -> argparse.ArgumentParser:
    """Return the options of the command."""
    parser = argparse.ArgumentParser(
        prog="ultrasam export",
        description="Write encoder and decoder for programs without PyTorch, first compared with PyTorch.",
    )
    parser.add_argument(
        "--weights", metavar="W", help="weight file or name (default: the model that comes with the package)"
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where encoder and decoder go")
    parser.add_argument("--format", default="onnx", choices=("onnx", "torchscript"), help="default: %(default)s")
    parser.add_argument(
        "--masks", action="store_true", help="the decoder also gives masks at the original size, which it then needs"
    )
    parser.add_argument("--image-size", type=int, metavar="N", help="side of the square (default: that of the weights)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Export; return 0, or 2 where it cannot be done."""
    options = build_parser().parse_args(argv)
    return guarded(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from ultrasam.checkpoints.network import load_network
    from ultrasam.inference.export import export_network
    from ultrasam.inference.export_check import LIMIT

    network = load_network(options.weights, image_size=options.image_size)
    exported = export_network(
        network.sam,
        options.out,
        format=options.format,
        masks=options.masks,
        card=network.card,
        passes=network.passes,
        mask_prompt=network.mask_prompt,
        sha256=network.sha256,
    )
    print(f"weights      {network.path} ({network.sam.arch}, square of {network.sam.image_size} pixels)")
    for path in exported.files:
        print(f"wrote        {path} ({path.stat().st_size / 1e6:.1f} MB)")
    gaps = ", ".join(f"{name} {gap:.1e}" for name, gap in exported.parity.items())
    print(f"largest difference from PyTorch: {gaps} (limit {LIMIT:g}); both files are in {options.out}")
    return 0
