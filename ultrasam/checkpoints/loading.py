"""Loading of weights into a SAM network: strict, and reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ultrasam.checkpoints.arch import ArchInfo, describe
from ultrasam.checkpoints.cards import choose_card
from ultrasam.checkpoints.convert import convert_released
from ultrasam.checkpoints.formats import card_of, detect_format, unwrap
from ultrasam.checkpoints.hashing import require_sha256, sha256_of
from ultrasam.checkpoints.huggingface import from_huggingface, load_folder
from ultrasam.checkpoints.lite import base_weights, unpack_lite
from ultrasam.checkpoints.reading import safe_load
from ultrasam.errors import CheckpointError

RESIDUALS = ("single", "double")
PARTS = ("image_encoder", "prompt_encoder", "mask_decoder")


@dataclass
class Weights:
    """A file of weights, read and renamed.

    Attributes:
        path: the file, or a Hugging Face folder.
        format: family, as ``detect_format`` tells.
        arch: what the shapes say.
        mlp_residual: "single" or "double", the form that the weights were trained with.
        card: what is known besides, or None.
        state: tensors by SAM's names.
        own_card: whether the card is the file's own, not that of its family.
        sha256: of the file, "" where it was not needed.
    """

    path: Path
    format: str
    arch: ArchInfo
    mlp_residual: str
    card: dict[str, Any] | None
    state: dict[str, Tensor]
    own_card: bool = False
    sha256: str = ""

    @property
    def parts(self) -> tuple[str, ...]:
        """Which of the network's parts the file holds."""
        return tuple(part for part in PARTS if any(name.startswith(f"{part}.") for name in self.state))


@dataclass
class LoadReport:
    """What a load did.

    Attributes:
        path: the file.
        format: its family.
        arch: its architecture.
        mlp_residual: form of the decoder's MLP residual, now set on the model.
        card: its card, or None.
        loaded: names that were copied.
        missing: names of the model that the file lacks; they keep their values.
        unexpected: names of the file that the model lacks.
        mismatched: names of another shape, not copied.
        resized: position tables that were interpolated.
    """

    path: Path
    format: str
    arch: ArchInfo
    mlp_residual: str
    card: dict[str, Any] | None
    loaded: list[str]
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"weights      {self.path}",
            f"format       {self.format}, {self.arch}",
            f"residual     {self.mlp_residual}",
        ]
        if self.card is not None:
            known = [str(self.card[key]) for key in ("name", "licence", "source") if self.card.get(key)]
            lines.append(f"card         {', '.join(known) or 'from the file'}")
        lines.append(f"loaded       {len(self.loaded)} tensors")
        for label in ("missing", "unexpected", "mismatched", "resized"):
            names = getattr(self, label)
            if names:
                lines.append(f"{label:<12} {len(names)}: {_first(names)}")
        return "\n".join(lines)


def read_weights(path: str | Path, *, sha256: str | None = None, name: str | None = None) -> Weights:
    """Read a file of any known family and rename its tensors to SAM's names.

    Args:
        path: the file, or a Hugging Face folder.
        sha256: hash that it must have.
        name: name of the card to use (needed for a MedSAM file whose name does not say so).

    Raises:
        CheckpointError: it cannot be read or is of no known family.
    """
    path = Path(path)
    if path.is_dir():
        content = load_folder(path)
        if sha256 is not None:
            require_sha256(path, sha256)
    else:
        content = safe_load(path, sha256=sha256)
    try:
        family = detect_format(content)
        state = _sam_names(family, content)
        arch = describe(state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    # SAM and MedSAM have the same names; the hash tells.
    digest = sha256_of(path) if family == "sam" and name is None else ""
    own = card_of(content)
    card = choose_card(own, family, arch.name, stem=path.stem, sha256=digest, name=name)
    residual = str((card or {}).get("mlp_residual", "single"))
    if residual not in RESIDUALS:
        raise CheckpointError(f"{path}: its card has mlp_residual {residual!r}, expected one of {RESIDUALS}")
    return Weights(path, family, arch, residual, card, state, own is not None and name is None, digest)


def _sam_names(family: str, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return a file's tensors by SAM's names."""
    state = unwrap(content)
    if family == "ultrasam_lite":
        return unpack_lite(state, base_weights(card_of(content) or {}))
    if family == "huggingface":
        return from_huggingface(state)
    if family == "mmpretrain":
        # The backbone may stand for itself or be part of a classifier.
        whole = any(name.startswith("backbone.") for name in state)
        return convert_released(state if whole else {f"backbone.{name}": value for name, value in state.items()})
    return convert_released(state) if family == "ultrasam_released" else state


def load_checkpoint(
    model: nn.Module,
    path: str | Path,
    *,
    strict: bool = True,
    resize_positions: bool = False,
    sha256: str | None = None,
    name: str | None = None,
) -> LoadReport:
    """Load a file of any known family into a SAM network.

    Args:
        model: network with SAM's names (``image_encoder.*``, ``prompt_encoder.*``, ``mask_decoder.*``). Its
            method ``set_mlp_residual`` is called, where it has one.
        path: the file.
        strict: every name must be in both, with equal shapes. Otherwise what fits is copied; see the report.
        resize_positions: interpolate ``pos_embed`` and ``rel_pos_*`` of another size.
        sha256: hash that the file must have.
        name: name of the card to use, see ``read_weights``.

    Returns:
        What was done; ``str()`` of it is for people.

    Raises:
        CheckpointError: the file cannot be read, or does not fit; the model is unchanged then.
    """
    weights = read_weights(path, sha256=sha256, name=name)
    return load_into(model, weights, strict=strict, resize_positions=resize_positions)


def load_into(
    model: nn.Module, weights: Weights, *, strict: bool = True, resize_positions: bool = False
) -> LoadReport:
    """Load weights that were read into a SAM network; see ``load_checkpoint``."""
    own = model.state_dict()
    state = dict(weights.state)
    resized = _resize_positions(state, own) if resize_positions else []
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    mismatched = [key for key in own if key in state and own[key].shape != state[key].shape]
    fitting = {key: state[key] for key in own if key in state and key not in set(mismatched)}
    if strict and (missing or unexpected or mismatched):
        raise CheckpointError(_misfit(weights, own, state, missing, unexpected, mismatched))
    if not fitting:
        raise CheckpointError(f"{weights.path} is {weights.arch}: no weight of it fits the model, {_model_name(own)}")
    model.load_state_dict(fitting, strict=False)
    set_residual = getattr(model, "set_mlp_residual", None)
    if set_residual is not None:
        set_residual(weights.mlp_residual)
    return LoadReport(
        weights.path,
        weights.format,
        weights.arch,
        weights.mlp_residual,
        weights.card,
        list(fitting),
        missing,
        unexpected,
        mismatched,
        resized,
    )


def _resize_positions(state: dict[str, Tensor], own: dict[str, Tensor]) -> list[str]:
    """Interpolate position tables to the model's sizes, in place; return their names."""
    resized = []
    for name, target in own.items():
        value = state.get(name)
        if value is None or value.shape == target.shape or value.shape[-1] != target.shape[-1]:
            continue
        if name.endswith(".pos_embed") and value.ndim == 4:
            grid = value.float().permute(0, 3, 1, 2)
            grid = F.interpolate(grid, size=tuple(target.shape[1:3]), mode="bicubic", align_corners=False)
            state[name] = grid.permute(0, 2, 3, 1)
        elif name.endswith((".rel_pos_h", ".rel_pos_w")):
            table = F.interpolate(value.float().T[None], size=target.shape[0], mode="linear")
            state[name] = table[0].T
        else:
            continue
        resized.append(name)
    return resized


def _misfit(
    weights: Weights,
    own: dict[str, Tensor],
    state: dict[str, Tensor],
    missing: Sequence[str],
    unexpected: Sequence[str],
    mismatched: Sequence[str],
) -> str:
    """Return the one sentence that says why weights do not fit."""
    shapes = [f"{key}: file {tuple(state[key].shape)}, model {tuple(own[key].shape)}" for key in mismatched]
    parts = [
        f"{len(names)} {kind} ({_first(shown)})"
        for kind, names, shown in (
            ("missing", missing, missing),
            ("unexpected", unexpected, unexpected),
            ("of another shape", mismatched, shapes),
        )
        if names
    ]
    positions = all(key.endswith((".pos_embed", ".rel_pos_h", ".rel_pos_w")) for key in mismatched)
    advice = "build the model with the file's architecture"
    if positions and not missing and not unexpected:
        advice = "build the model with the file's image size, or load with resize_positions=True"
    return (
        f"{weights.path} is {weights.arch} and does not fit the model, {_model_name(own)}: "
        f"weights {', '.join(parts)}; {advice}"
    )


def _model_name(own: dict[str, Tensor]) -> str:
    try:
        return str(describe(own))
    except CheckpointError:
        return f"a network of {len(own)} other weights"


def _first(names: Sequence[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
