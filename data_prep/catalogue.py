"""The list of datasets: every module of `data_prep.converters` that has a `CONVERTER`."""

from __future__ import annotations

import difflib
import importlib
import json
import pkgutil
from pathlib import Path

from data_prep import converters
from data_prep.records import Converter
from ultrasam.errors import ConfigError


def catalogue() -> dict[str, Converter]:
    """Return the converters by slug, sorted."""
    names = sorted(module.name for module in pkgutil.iter_modules(converters.__path__))
    return {name: importlib.import_module(f"data_prep.converters.{name}").CONVERTER for name in names}


def find_converter(slug: str) -> Converter:
    """Return the converter of a slug; ConfigError with near names when there is none."""
    known = catalogue()
    if slug in known:
        return known[slug]
    near = difflib.get_close_matches(slug.lower().replace("-", "_"), known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "see python -m data_prep list"
    raise ConfigError(f"dataset {slug!r} is not in the catalogue; {hint}")


def state(slug: str, root: Path | None) -> str:
    """Return what is on the disk of a set, in a word or two."""
    if root is None:
        return "-"
    manifest = root / slug / "manifest.json"
    if not manifest.is_file():
        return "not converted"
    counts = json.loads(manifest.read_text(encoding="utf-8"))["counts"]
    return f"{counts['images']} images, {counts['failed']} failed"
