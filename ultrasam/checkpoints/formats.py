"""Which family a file of weights belongs to, told by the names in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ultrasam.errors import CheckpointError

FORMATS = ("sam", "ultrasam_released", "litemedsam", "ultrasam", "ultrasam_lite", "huggingface", "mmpretrain")
PREFIXES = ("module.", "model.", "sam.", "detector.")
WRAPPERS = ("state_dict", "model_state_dict", "model")
# SAM's files may carry the pixel statistics, which are ours to know.
IGNORED = ("pixel_mean", "pixel_std")


LITE_FORMAT = "ultrasam-lite-1"
# MMPretrain's ViTSAM is the image encoder alone, under names that UltraSam.pth took over from it.
VITSAM_SIGN = "channel_reduction.0.weight"
RELEASED_SIGN = "prompt_encoder.label_encoder.label_embedding.weight"
RELEASED_PARTS = ("decoder.", "bbox_head.", "prompt_encoder.")
# What training tools save of an optimiser.
OPTIMIZER_KEYS = {"optimizer", "optimizer_state_dict", "optim", "param_groups"}


def unwrap(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights of a loaded file: without wrapper, prefixes, pixel statistics.

    Raises:
        CheckpointError: no weights in it, or two names that differ in their prefix only.
    """
    inner: Mapping[str, Any] = content
    for key in WRAPPERS:
        if isinstance(inner.get(key), Mapping):
            inner = inner[key]
            break
    state: dict[str, Tensor] = {}
    for name, value in inner.items():
        if not isinstance(value, Tensor) or not isinstance(name, str):
            continue
        plain = strip_prefixes(name)
        if plain in IGNORED:
            continue
        if plain in state:
            raise CheckpointError(f"the weights hold {plain!r} twice, under two prefixes; keep one copy")
        state[plain] = value
    if not state:
        keys = ", ".join(str(key)[:60] for key in list(content)[:5]) or "nothing"
        if OPTIMIZER_KEYS & set(content):
            raise CheckpointError(
                f"the file holds the state of an optimizer and no weights (found: {keys}); "
                "give the checkpoint that the training wrote with it"
            )
        raise CheckpointError(
            f"the file holds no weights (found: {keys}); expected tensors by name, or a 'state_dict' of them"
        )
    return state


def strip_prefixes(name: str) -> str:
    """Remove what training tools put before a name, as often as it stands there."""
    while name.startswith(PREFIXES):
        name = name[name.index(".") + 1 :]
    return name


def card_of(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the card that our files carry, or None."""
    card = content.get("card")
    return dict(card) if isinstance(card, Mapping) and card else None


def detect_format(content: Mapping[str, Any]) -> str:
    """Name the family of a loaded file, wrapped or plain.

    Returns:
        "ultrasam_released" (UltraSam.pth), "ultrasam" (files of this project), "ultrasam_lite" (differences from
        LiteMedSAM), "litemedsam", "huggingface" (SamModel), "mmpretrain" (ViTSAM, the image encoder alone), or "sam"
        (SAM and MedSAM, which names cannot tell apart).

    Raises:
        CheckpointError: of no known family.
    """
    state = unwrap(content)
    if any(name.startswith("delta.") for name in state) or (card_of(content) or {}).get("format") == LITE_FORMAT:
        return "ultrasam_lite"
    if "vision_encoder.patch_embed.projection.weight" in state:
        return "huggingface"
    if VITSAM_SIGN in state or f"backbone.{VITSAM_SIGN}" in state or RELEASED_SIGN in state:
        whole = any(name.startswith(RELEASED_PARTS) for name in state)
        return "ultrasam_released" if whole else "mmpretrain"
    encoder = [name for name in state if name.startswith("image_encoder.")]
    ours = card_of(content) is not None or str(content.get("format", "")).startswith("ultrasam-")
    inner = content.get("state_dict")
    if isinstance(inner, Mapping):
        # A detector of this project holds the network as its attribute ``sam``.
        ours = ours or any(str(name).removeprefix("module.").startswith("sam.") for name in inner)
    if encoder and ours:
        return "ultrasam"
    if any(name.startswith("image_encoder.patch_embed.seq.") for name in encoder):
        return "litemedsam"
    if "image_encoder.patch_embed.proj.weight" in state:
        return "sam"
    raise CheckpointError(
        f"the weights are of no known family (first names: {', '.join(list(state)[:3])}); known are SAM, MedSAM, "
        "LiteMedSAM, UltraSam.pth, Hugging Face's SamModel, MMPretrain's ViTSAM and files of this project"
    )
