"""The command ``prepare``: from a folder of downloads to files that training can start from."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.catalogue import catalogue, find_converter
from data_prep.collection.downloads import find_downloads, fingerprint
from data_prep.collection.merge import merge, twins
from data_prep.collection.sets import SIDES, Json, converted_slugs
from data_prep.pipeline import convert
from data_prep.records import Converter
from ultrasam.errors import DataError, UltraSamError
from ultrasam.io.files import write_atomic

# What each set of a root was converted from; no part of the data, so its name is hidden.
_SOURCES = ".sources.json"


@dataclass
class _Outcome:
    """What became of the sets that were looked for: slugs, and for failures the reason."""

    converted: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    not_found: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of ``python -m data_prep``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "prepare", help="convert every download that is found, and make one collection of all sets, ready to train")
    parser.set_defaults(run=run)
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder of converted datasets; made when absent")
    parser.add_argument("--source", type=Path, metavar="DOWNLOADS",
                        help="folder of downloads, archives or folders; without it only what ROOT has is merged")
    parser.add_argument("--only", nargs="+", metavar="SLUG", default=[], help="convert and merge these sets only")
    parser.add_argument("--skip", nargs="+", metavar="SLUG", default=[], help="neither convert nor merge these sets")
    parser.add_argument("--workers", type=_positive, help="processes (default: one per core)")
    parser.add_argument("--keep-going", action="store_true",
                        help="leave out images and sets that cannot be converted instead of failing before merging")
    parser.add_argument("--reconvert", action="store_true",
                        help="convert sets again that are converted and whose download has not changed")


def _positive(text: str) -> int:
    """Return a number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"at least 1 was expected, found {text}")
    return number


def run(options: argparse.Namespace) -> int | None:
    """Convert what is found, merge, and print what there is.

    Raises:
        DataError: a set cannot be converted, or the sets cannot be merged.
        ConfigError: a set that does not exist.
    """
    converters = catalogue()
    there = converted_slugs(options.root) if options.root.is_dir() else []
    for slug in {*options.only, *options.skip}.difference(there, converters):
        find_converter(slug)
    chosen = [slug for slug in sorted({*converters, *there})
              if slug not in options.skip and (not options.only or slug in options.only)]
    if options.source is not None:
        outcome = _convert_found({slug: converters[slug] for slug in chosen if slug in converters}, options)
        _print_outcome(outcome, options)
        if not (outcome.converted or outcome.kept or outcome.failed or there):
            raise DataError(f"{options.source}: the download of at least one set was expected, found none; name the "
                            "folders or archives by the slugs of their sets, see python -m data_prep list")
    infos = {slug: converter.info for slug, converter in converters.items()}
    manifest = merge(options.root, chosen, infos=infos, workers=options.workers)
    _print_collection(manifest, options.root)
    return None


def _convert_found(converters: Mapping[str, Converter], options: argparse.Namespace) -> _Outcome:
    """Convert the sets whose downloads are found and that are not converted yet."""
    infos = {slug: converter.info for slug, converter in converters.items()}
    downloads = find_downloads(options.source, infos)
    outcome = _Outcome()
    there = [slug for slug in infos if slug in downloads or (options.root / slug / "manifest.json").is_file()]
    unneeded = twins(there, infos)
    for slug in sorted(unneeded.keys() & downloads.keys()):
        print(f"{slug}: not converted, {unneeded[slug]}", file=sys.stderr)
        del downloads[slug]
    outcome.not_found = [slug for slug in converters if slug not in there and infos[slug].alias_of not in there]
    known = _known_sources(options.root)
    for slug, source in downloads.items():
        state = fingerprint(source, infos[slug])
        if (options.root / slug / "manifest.json").is_file() and not options.reconvert:
            if known.get(slug, state) == state:
                outcome.kept.append(slug)
                continue
            print(f"{slug}: {source} or the rules of the set changed, it is converted again", file=sys.stderr)
        try:
            convert(converters[slug], source, options.root, workers=options.workers, keep_going=options.keep_going)
        except UltraSamError as error:
            outcome.failed[slug] = str(error)
            print(f"{slug}: {error}", file=sys.stderr)
            continue
        outcome.converted.append(slug)
        known[slug] = state
        write_atomic(options.root / _SOURCES, json.dumps(known, indent=1, sort_keys=True).encode())
    return outcome


def _known_sources(root: Path) -> dict[str, str]:
    """Return the fingerprint of the download of each set that was converted by this command."""
    path = root / _SOURCES
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: the list of converted downloads is damaged ({error}); delete it") from error


def _print_outcome(outcome: _Outcome, options: argparse.Namespace) -> None:
    """Print what was converted, kept and not found; DataError for failures unless the run goes on."""
    for title, slugs in (("converted", outcome.converted), ("kept as converted before", outcome.kept),
                         (f"not found in {options.source}", outcome.not_found)):
        if slugs:
            print(f"{title}: {', '.join(slugs)}")
    if not outcome.failed:
        return
    summary = f"{len(outcome.failed)} sets could not be converted ({', '.join(outcome.failed)})"
    if not options.keep_going:
        raise DataError(f"{summary}, see above; nothing was merged: correct the downloads, leave the sets "
                        "out with --skip, or pass --keep-going")
    print(f"{summary}; an earlier conversion is used where there is one, because of --keep-going", file=sys.stderr)


def _print_collection(manifest: Json, root: Path) -> None:
    """Print images and masks per set and split, and what was left out."""
    rows: list[tuple[str, ...]] = [("set", "application", *SIDES, "masks")]
    for application, entry in manifest["applications"].items():
        for slug in entry["sets"]:
            splits = manifest["sets"][slug]["splits"]
            rows.append((slug, application, *(str(splits[side]["images"]) for side in SIDES),
                         str(sum(splits[side]["masks"] for side in SIDES))))
    totals = manifest["totals"]
    rows.append(("total", "", *(str(totals[side]["images"]) for side in SIDES),
                 str(sum(totals[side]["masks"] for side in SIDES))))
    _print_table(rows)
    for slug, reason in manifest["not_taken"].items():
        print(f"{slug} is not in the collection: {reason}")
    near = manifest["near_duplicates"]
    print(f"near duplicates: {near['pairs']} pairs of images, which join {sum(map(len, near['joined_groups']))} groups "
          f"into {len(near['joined_groups'])}")
    if totals["excluded"]["images"]:
        print(f"excluded: {totals['excluded']['images']} images that show what is on a test side, see manifest.json")
    print(f"wrote {root / 'manifest.json'} and {len(manifest['files'])} merged files beside it")


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns of equal width; the first row is the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
