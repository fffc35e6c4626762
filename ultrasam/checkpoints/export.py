"""Writing of weights in any format, from any format: names, containers and the MLP residual.

The doubled residual of ``UltraSam.pth``, ``norm3(2 q + mlp(q))``, and the single one of everyone else,
``norm3(q + mlp(q))``, are the same function of other weights: ``q`` comes out of ``norm2`` and goes nowhere else, so
doubling ``norm2``'s weight and bias and halving the MLP's first weights turns one into the other. Factors of two are
exact in floating point, and no LayerNorm sees another input.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ultrasam.checkpoints.convert import convert_to_released, released_name
from ultrasam.checkpoints.hashing import tensors_sha256
from ultrasam.checkpoints.huggingface import write_folder
from ultrasam.checkpoints.loading import PARTS, Weights
from ultrasam.checkpoints.saving import FORMAT, save_checkpoint, write_tensors
from ultrasam.errors import CheckpointError
from ultrasam.modeling.build import ARCHITECTURES

# What "double" weights are multiplied by to become "single" ones.
TO_SINGLE = {".norm2.weight": 2.0, ".norm2.bias": 2.0, ".mlp.lin1.weight": 0.5}
TWO_WAY = "mask_decoder.transformer.layers."
ENCODER = "image_encoder."


@dataclass(frozen=True)
class Target:
    """A format that weights can be written in.

    Attributes:
        what: for people.
        residual: "single" or "double", or "" where the file itself says which.
        encoders: kinds of image encoder that it can hold.
        architecture: the only one that it can hold, or "".
        encoder_only: whether it holds the image encoder alone.
        suffixes: endings of the file; "" for a folder.
        carries_card: whether a .pth of it holds the card (a .safetensors always does).
    """

    what: str
    residual: str = "single"
    encoders: tuple[str, ...] = ("vit",)
    architecture: str = ""
    encoder_only: bool = False
    suffixes: tuple[str, ...] = (".pth", ".safetensors")
    carries_card: bool = False


BOTH = ("vit", "tiny_vit")
TARGETS: dict[str, Target] = {
    "ultrasam": Target("a file of this project, with its card", "", BOTH, carries_card=True),
    "training": Target("weights of this project's detector (names begin with sam.)", "", BOTH, carries_card=True),
    "sam": Target("the file of the segment-anything package", "single", BOTH),
    "medsam": Target("the file of MedSAM", "single", architecture="vit_b"),
    "litemedsam": Target("the file of LiteMedSAM", "single", ("tiny_vit",)),
    "ultrasam_released": Target("the file UltraSam.pth", "double"),
    "huggingface": Target("the folder of a Hugging Face SamModel", "single", suffixes=("",), carries_card=True),
    "mmpretrain": Target("MMPretrain's ViTSAM, the image encoder alone", "", encoder_only=True),
}


def with_residual(state: Mapping[str, Tensor], now: str, wanted: str) -> dict[str, Tensor]:
    """Return weights of the other residual form that give the same masks; see the module's text.

    Args:
        state: by SAM's names.
        now: "single" or "double", what ``state`` was trained with.
        wanted: the same, or "" for no change.
    """
    if wanted in ("", now):
        return dict(state)
    out = dict(state)
    for name, value in state.items():
        for end, factor in TO_SINGLE.items():
            if name.startswith(TWO_WAY) and name.endswith(end):
                out[name] = value * (factor if now == "double" else 1 / factor)
    return out


def check_target(found: Weights, kind: str, out: Path) -> Target:
    """Return a target that can hold some weights.

    Raises:
        CheckpointError: it cannot, or the file's name does not suit it.
    """
    if kind not in TARGETS:
        raise CheckpointError(f"there is no format {kind!r} to write; formats are {', '.join(TARGETS)}")
    target = TARGETS[kind]
    if out.suffix not in target.suffixes:
        expected = " or ".join(target.suffixes) if target.suffixes != ("",) else "a folder's name without an ending"
        raise CheckpointError(f"{kind} is written as {expected}, got {out.name!r}")
    if found.arch.name is None:
        known = ", ".join(ARCHITECTURES)
        raise CheckpointError(f"{found.path} is {found.arch}; only known architectures are converted: {known}")
    if found.arch.encoder not in target.encoders or target.architecture not in ("", found.arch.name):
        raise CheckpointError(f"{found.path} is {found.arch}; {kind} ({target.what}) cannot hold that architecture")
    needed = PARTS[:1] if target.encoder_only else PARTS
    missing = [part for part in needed if part not in found.parts]
    if missing:
        raise CheckpointError(
            f"{found.path} holds no {' and no '.join(missing)}, which {kind} needs; convert SAM's whole file instead"
        )
    return target


def write_as(found: Weights, kind: str, out: Path, card: Mapping[str, Any]) -> None:
    """Write weights in a format.

    Args:
        found: what was read.
        kind: a name in ``TARGETS``.
        out: file, or folder for "huggingface".
        card: what is known of the network; its residual form and source format are written as they become.

    Raises:
        CheckpointError: the format cannot hold these weights, or the file cannot be written.
    """
    target = check_target(found, kind, out)
    state = with_residual(found.state, found.mlp_residual, target.residual)
    if target.encoder_only:
        state = {name: value for name, value in state.items() if name.startswith(ENCODER)}
    full = {**card, "mlp_residual": target.residual or found.mlp_residual, "converted_from": found.format}
    full = {key: value for key, value in full.items() if key not in ("base", "format", "tensors_sha256")}
    if kind == "huggingface":
        write_folder(out, state, str(found.arch.name), full)
    elif kind == "ultrasam":
        save_checkpoint(out, state, full)
    else:
        names = NAMES[kind](state) if kind in NAMES else state
        _write_file(out, {name: value.clone().contiguous() for name, value in names.items()}, kind, target, full)


def _write_file(
    out: Path, names: dict[str, Tensor], kind: str, target: Target, card: dict[str, Any]
) -> None:
    card = {**card, "tensors_sha256": tensors_sha256(names)}
    content: dict[str, Any] = dict(names)
    if out.suffix == ".pth" and target.carries_card:
        content = {"format": FORMAT, "card": card, "meta": {}, "state_dict": names}
    elif out.suffix == ".pth" and kind in ("ultrasam_released", "mmpretrain"):
        content = {"meta": {}, "state_dict": names}
    write_tensors(out, content, {"card": json.dumps(card)})


def _detector_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"sam.{name}": value for name, value in state.items()}


def _encoder_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {released_name(name): value for name, value in state.items()}


NAMES: dict[str, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]] = {
    "training": _detector_names,
    "ultrasam_released": convert_to_released,
    "mmpretrain": _encoder_names,
}
