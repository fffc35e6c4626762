"""Writing of weight files: plain tensors and a card, whole or not at all."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ultrasam.checkpoints.hashing import tensors_sha256
from ultrasam.errors import CheckpointError

FORMAT = "ultrasam-weights-1"
SUFFIXES = (".pth", ".safetensors")


def save_checkpoint(path: str | Path, state: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write weights and their card.

    Args:
        path: ending in .pth (read by ``torch.load(weights_only=True)``) or .safetensors; folders are created.
        state: tensors by SAM's names.
        card: plain values (see ``ultrasam.checkpoints.cards``); ``tensors_sha256``, the hash of the tensors, is
            added.

    Raises:
        CheckpointError: another ending, a value that is no tensor, a card that JSON cannot hold, a full disk.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise CheckpointError(f"weights are written as {' or '.join(SUFFIXES)}, got {path.name!r}")
    wrong = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if wrong:
        raise CheckpointError(f"cannot write {path}: {wrong[0]!r} is no tensor; pass tensors only")
    # Clones: a view of a larger storage would be written with all of it, safetensors refuses shared ones.
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
    try:
        text = json.dumps({**card, "tensors_sha256": tensors_sha256(tensors)}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"cannot write {path}: a value of the card is not plain ({error})") from error
    content: dict[str, Any] = {"format": FORMAT, "card": json.loads(text), "state_dict": tensors}
    write_tensors(path, content if path.suffix == ".pth" else tensors, {"card": text})


def write_tensors(path: Path, content: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write a .pth file of ``content``, or a .safetensors file of tensors and metadata, whole or not at all.

    Raises:
        CheckpointError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if path.suffix == ".safetensors":
                from safetensors.torch import save

                # Its save_file makes files that only their owner may read.
                temporary.write_bytes(save(dict(content), metadata={"format": "pt", **metadata}))
            else:
                torch.save(dict(content), temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be written ({error}); check folder and free space") from error
