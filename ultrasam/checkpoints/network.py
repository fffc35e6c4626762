"""From a weight file to a network that predicts: the one place where inference loads weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ultrasam.checkpoints.cards import is_adapted, is_adapter
from ultrasam.checkpoints.formats import card_of
from ultrasam.checkpoints.hashing import sha256_of
from ultrasam.checkpoints.loading import PARTS, LoadReport, Weights, load_into, read_weights
from ultrasam.checkpoints.reading import read_header
from ultrasam.checkpoints.weights import LITE, base_and_file, resolve_weights
from ultrasam.errors import CheckpointError
from ultrasam.modeling.build import ARCHITECTURES, build_sam
from ultrasam.modeling.sam import Preprocessing, Sam

PASSES = ("single", "multi")


@dataclass
class Network:
    """A network ready to predict, and what is known of its weights.

    Attributes:
        sam: the network, in evaluation mode, no parameter of which asks for a gradient.
        passes: decoder passes in order, "single" (mask token 0) or "multi" (tokens 1 to 3, the best by predicted
            IoU); empty for SAM's own convention: "multi" for one point alone, "single" otherwise.
        mask_prompt: whether a pass gets the logits of the one before as mask prompt.
        card: what the file or its family says; ``architecture``, ``mlp_residual`` and ``preprocessing`` are always
            there and are those of ``sam``.
        path: the file (or a Hugging Face folder).
        sha256: of the file, 64 hexadecimal digits.
        report: what loading did.
    """

    sam: Sam
    passes: tuple[str, ...]
    mask_prompt: bool
    card: dict[str, Any]
    path: Path
    sha256: str
    report: LoadReport


def load_network(
    weights: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    image_size: int | None = None,
) -> Network:
    """Load weights of any known format into a network for inference.

    An adapter's own file (``ultrasam.adapters``) goes onto the base that its card names, or onto the one that is named
    before it: "BASE+ADAPTER". LoRA is folded into the base, so that it costs nothing.

    Args:
        weights: a file, a Hugging Face folder, or a name that ``resolve_weights`` knows; None for the model that
            comes with the package, "ultrasam-lite".
        device: where the network goes.
        image_size: side of the network's square in pixels, a multiple of 16; position tables are interpolated to it.
            None for the size that the weights were trained at.

    Raises:
        CheckpointError: there is no such file, it is damaged or unsafe, or it is no network that can be built.
    """
    base, path = base_and_file(LITE if weights is None else weights)
    card = None if path.is_dir() else card_of(read_header(path))
    if card is None or not is_adapter(card):
        if base is not None:
            raise CheckpointError(f"{path} is no adapter, so it cannot be put onto {base}; give one of the two alone")
        return network_of(read_weights(path), device=device, image_size=image_size)
    if image_size is not None:
        raise CheckpointError(f"{path} is an adapter, which works at the size it was trained at; leave image_size away")
    return _with_adapter(path, card, base, device)


def _with_adapter(path: Path, card: Mapping[str, Any], base: str | None, device: str | torch.device) -> Network:
    """Build the base of an adapter file and put the adapter onto it.

    Raises:
        CheckpointError: the base is not there, or is another one.
    """
    # Adapters read weight files themselves, so neither package can import the other first.
    from ultrasam.adapters.files import put_on_base, read_adapter

    found = read_adapter(path)
    name = base or str(found.base.get("name") or "")
    try:
        network = network_of(read_weights(resolve_weights(name)))
    except CheckpointError as error:
        raise CheckpointError(
            f"{path} is an adapter of {name!r}, which cannot be loaded ({error}); name its base, as in "
            f"'BASE.pth+{path.name}'"
        ) from error
    put_on_base(network.sam, found, name)
    _fold(network.sam)
    sam = network.sam.eval().requires_grad_(False).to(device)
    told = {**card, "preprocessing": sam.preprocessing.to_dict(), "base_file": str(network.path)}
    passes = tuple(card.get("passes") or network.passes)
    return Network(sam, passes, bool(card.get("mask_prompt", True)), told, path, sha256_of(path), network.report)


def _fold(sam: Sam) -> None:
    """Fold LoRA into the weights; other adapters stay beside them."""
    from ultrasam.adapters.attach import attached, merge

    record = attached(sam)
    if record is not None and record.method == "lora":
        merge(sam)


def network_of(found: Weights, *, device: str | torch.device = "cpu", image_size: int | None = None) -> Network:
    """Build the network of weights that were read; see ``load_network``."""
    lacking = [part for part in PARTS if part not in found.parts]
    if lacking:
        raise CheckpointError(
            f"{found.path} holds no {' and no '.join(lacking)}, only {', '.join(found.parts)}; predicting needs all "
            "three, so give the file of a whole network"
        )
    sam = build_for(found, image_size)
    adapted = found.card is not None and is_adapted(found.card)
    if adapted:
        from ultrasam.adapters.files import prepare_adapted

        prepare_adapted(sam, found.card or {})
    report = load_into(sam, found, resize_positions=image_size is not None)
    if adapted:
        _fold(sam)
    sam = sam.eval().requires_grad_(False).to(device)
    card = {
        **(found.card or {}),
        "architecture": sam.arch,
        "mlp_residual": sam.mlp_residual,
        "preprocessing": sam.preprocessing.to_dict(),
    }
    passes = passes_of(found)
    sha256 = found.sha256 or sha256_of(found.path)
    return Network(sam, passes, bool(card.get("mask_prompt", True)), card, found.path, sha256, report)


def build_for(found: Weights, image_size: int | None = None) -> Sam:
    """Build the network that weights are for, with random values.

    Raises:
        CheckpointError: its sizes are those of no known architecture, or its card contradicts them.
    """
    name, card = found.arch.name, found.card or {}
    if name is None:
        raise CheckpointError(
            f"{found.path} is {found.arch}, which cannot be built; known architectures are {', '.join(ARCHITECTURES)}"
        )
    if found.own_card and card.get("architecture", name) != name:
        raise CheckpointError(
            f"{found.path}: its card says architecture {card['architecture']!r}, its weights are {found.arch}; "
            "write the file again with the card that belongs to it"
        )
    fields = card.get("preprocessing", {})
    if not isinstance(fields, Mapping):
        raise CheckpointError(f"{found.path}: preprocessing in its card must be a table of values, got {fields!r}")
    # A ViT's position table tells its size; TinyViT works at any, and its card tells what it was trained at.
    own_size = fields.get("square") if found.arch.encoder == "tiny_vit" else found.arch.image_size
    size = image_size or own_size or found.arch.image_size
    pixels = {key: value for key, value in fields.items() if key != "square"}
    for key in ("mean", "std"):
        if isinstance(pixels.get(key), list):
            pixels[key] = tuple(pixels[key])
    try:
        Preprocessing(**pixels)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{found.path}: the preprocessing in its card is not known here ({error}); correct the card"
        ) from error
    # Building draws random weights; the caller's random numbers stay as they would be without it.
    with torch.random.fork_rng(devices=[]):
        try:
            return build_sam(name, size, pixels)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{found.path} cannot be built as {name}: {error}") from error


def passes_of(found: Weights) -> tuple[str, ...]:
    """Return the decoder's passes: those of the card, else those of the public file.

    Raises:
        CheckpointError: the card names a pass that does not exist.
    """
    card = found.card or {}
    if "passes" in card:
        passes = card["passes"]
        if not isinstance(passes, list | tuple) or any(name not in PASSES for name in passes):
            raise CheckpointError(f"{found.path}: its card has passes {passes!r}, expected a list of {PASSES}")
        return tuple(passes)
    if found.format == "ultrasam_released":
        return ("single", "multi")
    return ("single",) if found.format == "litemedsam" or card.get("name") in ("medsam", "litemedsam") else ()
