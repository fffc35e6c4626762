"""``ultrasam checkpoint info|convert|verify|fetch|list``: weight files of every format."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ultrasam.cli.errors import guarded

FILE_HELP = "a weight file of any format that UltraSam reads, a Hugging Face folder, or a name (litemedsam)"
# Kept here, so that the help needs no torch; a test compares them with ``TARGETS``.
KINDS = ("ultrasam", "training", "sam", "medsam", "litemedsam", "ultrasam_released", "huggingface", "mmpretrain")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the verbs; return 2 where a file cannot be used."""
    options = parser().parse_args(argv)
    return guarded(lambda: int(options.run(options)))


def parser() -> argparse.ArgumentParser:
    """Return the parser of ``ultrasam checkpoint``."""
    top = argparse.ArgumentParser(prog="ultrasam checkpoint", description="Read, convert and check weight files.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    add_info_options(verbs.add_parser("info", help="say what files hold", description="Say what weight files hold."))
    convert = verbs.add_parser(
        "convert",
        help="write a file in another format",
        description="Write weights in another format, read them back and compare both networks.",
    )
    convert.add_argument("file", help=FILE_HELP)
    convert.add_argument("out", type=Path, help="file ending in .pth or .safetensors, or a folder for huggingface")
    convert.add_argument("--to", choices=KINDS, default="ultrasam", help="format to write (default: ultrasam)")
    convert.add_argument("--name", help="public weights that FILE is, where it cannot tell itself (such as medsam)")
    convert.add_argument("--overwrite", action="store_true", help="replace OUT if it is a file that exists")
    convert.set_defaults(run=_convert)
    verify = verbs.add_parser(
        "verify",
        help="check files",
        description="Check hash, values, shapes and card of weight files, load them strictly and run them once.",
    )
    verify.add_argument("files", nargs="+", metavar="FILE", help=FILE_HELP)
    verify.add_argument("--sha256", help="hash that the file must have, 64 hexadecimal digits")
    verify.set_defaults(run=_verify)
    fetch = verbs.add_parser(
        "fetch",
        help="download public weights",
        description="Download public weights into the folder ULTRASAM_WEIGHTS, else ~/.cache/ultrasam.",
    )
    fetch.add_argument("name", help="a name that 'ultrasam checkpoint list' prints")
    fetch.add_argument("--url", help="address to take instead of the known one; the hash must be the same")
    fetch.set_defaults(run=_fetch)
    known = verbs.add_parser("list", help="list public weights", description="List public weights known by name.")
    known.set_defaults(run=_list)
    return top


def add_info_options(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``info`` to a parser, and its function as ``run``."""
    command.add_argument("files", nargs="+", metavar="FILE", help=FILE_HELP)
    command.add_argument("--json", action="store_true", help="print a list with one object a file")
    command.set_defaults(run=_info)


def _info(options: argparse.Namespace) -> int:
    from ultrasam.checkpoints.summary import summarize
    from ultrasam.checkpoints.weights import resolve_weights

    found = [summarize(resolve_weights(name)) for name in options.files]
    if options.json:
        print(json.dumps(found, indent=2, default=str))
    else:
        print("\n\n".join(text_of(summary) for summary in found))
    return 0


def text_of(summary: Mapping[str, Any]) -> str:
    """Return a summary for people: one line a fact, the card last."""
    from ultrasam.checkpoints.summary import totals

    pixels = summary["preprocessing"] or {}
    how = {"pad": "aspect kept, padded", "squash": "both sides resized"}.get(pixels.get("mode", ""), "")
    lines = {
        "file": summary["file"],
        "sha256": summary["sha256"],
        "format": summary["format"],
        "architecture": summary["architecture"] or "unnamed",
        "residual": summary["residual"],
        "parameters": f"{summary['parameters']:,}",
        "parts": ", ".join(summary["parts"]),
        "pixels": f"{summary['image_size']} x {summary['image_size']}, {how}, {pixels.get('scaling', 'unknown')}, "
        f"{pixels.get('interpolation', 'unknown')}",
        "passes": ", ".join(summary["passes"]) or "SAM's: three masks for one point, one mask otherwise",
        "licence": summary["licence"] or "unknown",
        "source": summary["source"] or "unknown",
        "described by": {
            "file": "the file itself", "hash": "its hash, a public file's",
            "format": "its format and name, so check that it is what it seems", "nothing": "nothing",
        }[summary["card_from"]],
    }  # fmt: skip
    out = [f"{name:<13} {value}" for name, value in lines.items()]
    sets = summary["training"]
    if sets:
        sums = ", ".join(f"{value:,} {key}" for key, value in totals(sets).items())
        out.append(f"{'trained on':<13} {len(sets)} {'set' if len(sets) == 1 else 'sets'}{', ' if sums else ''}{sums}")
        out += [f"  {_set_line(entry)}" for entry in sets]
    out += [f"{'left out':<13} {text}" for text in summary["exclusions"]]
    card = json.dumps(summary["card"], indent=2, sort_keys=True, default=str, ensure_ascii=False)
    out.append("card          " + card.replace("\n", "\n  "))
    return "\n".join(out)


def _set_line(entry: Mapping[str, Any]) -> str:
    parts = [str(entry["application"])] if entry.get("application") else []
    parts += [f"{entry[key]:,} {key}" for key in ("images", "masks") if isinstance(entry.get(key), int)]
    return f"{entry.get('name', 'unnamed')}: {', '.join(parts) or 'counts not known'}"


def _convert(options: argparse.Namespace) -> int:
    from ultrasam.checkpoints.conversion import convert_file
    from ultrasam.checkpoints.weights import resolve_weights

    done = convert_file(
        resolve_weights(options.file), options.out, options.to, name=options.name, overwrite=options.overwrite
    )
    for note in done.notes:
        print(f"note: {note}")
    for difference in done.differences:
        print(difference)
    worst = max(done.differences, key=lambda difference: difference.largest)
    print(f"the networks are the same: largest difference {worst.largest:.2g}, in {worst.what}")
    print(f"wrote {done.path} ({done.kind})")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from ultrasam.checkpoints.summary import verify
    from ultrasam.checkpoints.weights import resolve_weights
    from ultrasam.errors import CheckpointError

    if options.sha256 is not None and len(options.files) > 1:
        count = len(options.files)
        raise CheckpointError(f"--sha256 is the hash of one file, but {count} were given; verify one by one")
    failed = []
    for name in options.files:
        path = resolve_weights(name)
        print(path)
        checks = verify(path, options.sha256)
        for check in checks:
            mark = {True: "ok", False: "FAILED", None: "--"}[check.passed]
            print(f"  {mark:<7} {check.name:<9} {check.text}")
        failed += [f"{path}: {check.text}" for check in checks if check.passed is False][:1]
    if failed:
        raise CheckpointError(f"{len(failed)} of {len(options.files)} files cannot be trusted: {'; '.join(failed)}")
    print(f"all {len(options.files)} files are sound")
    return 0


def _fetch(options: argparse.Namespace) -> int:
    from ultrasam.checkpoints.fetch import fetch_weights
    from ultrasam.checkpoints.hashing import sha256_of
    from ultrasam.checkpoints.registry import REGISTRY

    shown = [-1]

    def progress(done: int, total: int | None) -> None:
        part = 0 if total is None else done * 20 // max(total, 1)
        if sys.stderr.isatty() or part != shown[0]:
            size = "" if total is None else f" of {total / 2**20:,.1f}"
            print(f"\r{done / 2**20:,.1f}{size} MiB", end="", file=sys.stderr, flush=True)
            shown[0] = part

    try:
        path = fetch_weights(options.name, url=options.url, progress=progress)
    finally:
        if shown[0] >= 0:
            print(file=sys.stderr)
    entry = REGISTRY[options.name]
    hashed = "as it must be" if entry.sha256 else "which could not be compared, as the right one is not known here"
    print(f"licence {entry.licence}")
    print(f"sha256  {sha256_of(path)}, {hashed}")
    print(f"wrote {path}; use it as --weights {entry.name}")
    return 0


def _list(options: argparse.Namespace) -> int:
    from ultrasam.checkpoints.registry import REGISTRY, weights_folder
    from ultrasam.checkpoints.weights import resolve_weights
    from ultrasam.errors import CheckpointError

    for entry in REGISTRY.values():
        try:
            state = f"here: {resolve_weights(entry.name)}"
        except CheckpointError as error:
            state = "not usable: has another hash" if "SHA-256" in str(error).split(";")[0] else f"get {entry.where}"
        print(f"{entry.name:<14} {entry.what}; {entry.licence}, {entry.size}\n{'':<14} {state}")
        print(f"{'':<14} sha256 {entry.sha256 or 'not known'}")
    print(f"names are looked for in {weights_folder()}")
    return 0
