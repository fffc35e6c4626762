"""What a weight file is, as plain values, and whether it can be trusted to work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ultrasam.checkpoints.cards import KNOWN_SHA256
from ultrasam.checkpoints.formats import unwrap
from ultrasam.checkpoints.hashing import sha256_of, tensors_sha256
from ultrasam.checkpoints.huggingface import load_folder
from ultrasam.checkpoints.loading import Weights, read_weights
from ultrasam.checkpoints.network import build_for, network_of, passes_of
from ultrasam.checkpoints.parity import fixed_image, network_for, outputs
from ultrasam.checkpoints.reading import safe_load
from ultrasam.checkpoints.registry import entry_of_file
from ultrasam.errors import CheckpointError

COUNTS = ("images", "masks")


def summarize(path: Path) -> dict[str, Any]:
    """Return what is known of a file: plain values for JSON.

    Keys: file, sha256, format, architecture, residual, parameters, parts, image_size, preprocessing, passes, training,
    exclusions, licence, source, card_from ("file", "hash", "format" or "nothing"), card.

    Raises:
        CheckpointError: it cannot be read or is no network.
    """
    found = read_weights(path)
    digest = found.sha256 or sha256_of(path)
    card = found.card or {}
    known = found.arch.name is not None
    pixels = build_for(found).preprocessing.to_dict() if known else card.get("preprocessing")
    by_hash = digest in KNOWN_SHA256
    origin = "file" if found.own_card else "hash" if by_hash else "format" if found.card else "nothing"
    return {
        "file": str(path),
        "sha256": digest,
        "format": found.format,
        "architecture": found.arch.name,
        "residual": found.mlp_residual,
        "parameters": sum(value.numel() for value in found.state.values()),
        "parts": list(found.parts),
        "image_size": pixels["square"] if known and pixels else found.arch.image_size,
        "preprocessing": pixels,
        "passes": list(passes_of(found)),
        "training": training_sets(card),
        "exclusions": exclusions(card),
        "licence": card.get("licence"),
        "source": card.get("source"),
        "card_from": origin,
        "card": found.card,
    }


def training_sets(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a card's training sets, one dictionary each: name, application, images, masks and what else it says.

    ``card["training"]["datasets"]`` is a table by name, or a list of tables with a name.
    """
    training = card.get("training")
    sets = training.get("datasets", training.get("sets")) if isinstance(training, Mapping) else None
    if isinstance(sets, Mapping):
        return [{"name": str(name), **(value if isinstance(value, Mapping) else {})} for name, value in sets.items()]
    if isinstance(sets, list | tuple):
        return [dict(value) if isinstance(value, Mapping) else {"name": str(value)} for value in sets]
    return []


def exclusions(card: Mapping[str, Any]) -> list[str]:
    """Return what a card says was left out of training, as texts."""
    training = card.get("training")
    found = training.get("exclusions", []) if isinstance(training, Mapping) else []
    return [str(item) for item in found] if isinstance(found, list | tuple) else [str(found)]


def totals(sets: list[dict[str, Any]]) -> dict[str, int]:
    """Return the sums of images and of masks over the sets that say them."""
    sums = {}
    for key in COUNTS:
        values = [entry[key] for entry in sets if isinstance(entry.get(key), int)]
        if values:
            sums[key] = sum(values)
    return sums


@dataclass(frozen=True)
class Check:
    """One check of a file: its name, whether it passed (None: nothing to compare with), and what was found."""

    name: str
    passed: bool | None
    text: str


def verify(path: Path, sha256: str | None = None) -> list[Check]:
    """Check hash, values, shapes, card, loading and one forward pass of a file.

    Args:
        path: file, or Hugging Face folder.
        sha256: hash that it must have; None to compare with the registry, where the file's name is known there.

    Returns:
        All checks up to the first that stops the rest.
    """
    checks: list[Check] = []
    try:
        for check in _checks(path, sha256):
            checks.append(check)
            if check.passed is False and check.name in ("readable", "network"):
                break
    except CheckpointError as error:
        checks.append(Check("network", False, str(error)))
    return checks


def _checks(path: Path, sha256: str | None) -> Iterator[Check]:
    try:
        found = read_weights(path)
    except CheckpointError as error:
        yield Check("readable", False, str(error))
        return
    yield Check("readable", True, f"{found.format}, {found.arch}")
    yield _hash_check(path, found, sha256)
    content = load_folder(path) if path.is_dir() else safe_load(path)
    stored = unwrap(content)
    bad = [name for name, value in {**stored, **found.state}.items() if not _finite(value)]
    yield Check("finite", not bad, f"{bad[0]!r} holds values that are not finite" if bad else f"{len(stored)} tensors")
    yield _card_check(found, content)
    encoder_only = found.parts == ("image_encoder",)
    # Raises where a tensor is missing, superfluous or of another shape.
    sam = network_for(found) if encoder_only else network_of(found).sam
    yield Check("network", True, f"{len(found.state)} tensors, none missing, all of the right shape")
    square = sam.preprocessing.batch([fixed_image(sam.image_size)])
    results = outputs(sam.eval(), square, decode=not encoder_only)
    odd = [what for what, value in results.items() if not _finite(value)]
    yield Check("forward", not odd, f"{odd[0]} is not finite" if odd else f"finite: {', '.join(results)}")


def _finite(value: Tensor) -> bool:
    return not (value.is_floating_point() or value.is_complex()) or bool(torch.isfinite(value).all())


def _hash_check(path: Path, found: Weights, sha256: str | None) -> Check:
    digest = found.sha256 or sha256_of(path)
    if sha256 is not None:
        same = digest == sha256.strip().lower()
        return Check("hash", same, digest if same else f"{digest}, expected {sha256}; download the file again")
    entry = entry_of_file(path)
    if entry is not None and entry.sha256:
        same = digest == entry.sha256
        text = f"{digest}, as {entry.name}" if same else f"{digest}, but {entry.name} has {entry.sha256}"
        return Check("hash", same, text if same else f"{text}; download it again from {entry.where}")
    if digest in KNOWN_SHA256:
        return Check("hash", True, f"{digest}, the file of {KNOWN_SHA256[digest]}")
    return Check("hash", None, f"{digest}, not in the registry; compare it with the source's")


def _card_check(found: Weights, content: Mapping[str, Any]) -> Check:
    """Compare a file's own card with its weights."""
    if not found.own_card or found.card is None:
        return Check("card", None, "the file carries none")
    card = found.card
    problems: list[str] = []
    rules: tuple[tuple[str, Callable[[], object], str], ...] = (
        ("architecture", lambda: found.arch.name, "the weights are"),
        ("tensors_sha256", lambda: tensors_sha256(_as_written(content)), "the tensors have"),
    )
    for key, actual, words in rules:
        if key in card and card[key] != (value := actual()):
            problems.append(f"{key} is {card[key]!r} but {words} {value!r}")
    square = (card.get("preprocessing") or {}).get("square")
    if found.arch.encoder == "vit" and square not in (None, found.arch.image_size):
        problems.append(f"the square is {square} pixels but the weights are for {found.arch.image_size}")
    try:
        passes_of(found)
    except CheckpointError as error:
        problems.append(str(error))
    lacking = [key for key in ("architecture", "mlp_residual", "preprocessing", "licence") if not card.get(key)]
    said = f"says nothing of {', '.join(lacking)}" if lacking else "architecture, residual, preprocessing and licence"
    return Check("card", not problems, "; ".join(problems) or said)


def _as_written(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return a file's tensors under the very names in it, which the card's hash is of."""
    inner = content.get("state_dict", content)
    return {name: value for name, value in inner.items() if isinstance(value, Tensor)}
