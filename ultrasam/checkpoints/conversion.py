"""Conversion of a file to another format, kept only if the network is the same."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrasam.checkpoints.export import TARGETS, check_target, write_as
from ultrasam.checkpoints.loading import Weights, read_weights
from ultrasam.checkpoints.network import build_for, passes_of
from ultrasam.checkpoints.parity import Difference, compare
from ultrasam.errors import CheckpointError


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        path: the file or folder.
        kind: its format.
        differences: of every output, between the two networks.
        notes: what a user should know of the result.
    """

    path: Path
    kind: str
    differences: list[Difference]
    notes: list[str]


def convert_file(
    source: Path, out: Path, kind: str, *, name: str | None = None, overwrite: bool = False
) -> Conversion:
    """Write weights in another format, read them back as anyone would, and compare both networks.

    Args:
        source: file of any format that is read, or Hugging Face folder.
        out: file (.pth or .safetensors), or folder for "huggingface".
        kind: a name in ``TARGETS``.
        name: name of the source's card, where its names and its file name do not tell it (MedSAM).
        overwrite: replace a file that exists. A folder is never replaced.

    Raises:
        CheckpointError: the source cannot be read or held by the target, or the networks differ; ``out`` is as it was
            before then.
    """
    found = read_weights(source, name=name)
    check_target(found, kind, out)
    if out.exists() and (out.is_dir() or not overwrite):
        raise CheckpointError(f"{out} exists; choose another name{'' if out.is_dir() else ', or give --overwrite'}")
    # The name is kept as a part, for it may say which public weights these are.
    token = secrets.token_hex(4)
    working = out.with_name(f".{token}.{out.name[-100:]}" if out.suffix else f"{out.name[-100:]}-{token}")
    try:
        write_as(found, kind, working, full_card(found))
        copy = read_weights(working)
        differences = compare(found, copy)
        wrong = [difference for difference in differences if not difference.same]
        if wrong:
            raise CheckpointError(
                f"{source} and what was written of it as {kind} do not give the same ({wrong[0]}), so {out} was not "
                "kept; please report this with the file's 'ultrasam checkpoint info'"
            )
        notes = _notes(found, copy, kind)
        working.replace(out)
    except OSError as error:
        raise CheckpointError(f"{out} cannot be written ({error}); check folder and free space") from error
    finally:
        if working.is_dir():
            shutil.rmtree(working, ignore_errors=True)
        working.unlink(missing_ok=True)
    return Conversion(out, kind, differences, notes)


def full_card(found: Weights) -> dict[str, Any]:
    """Return the card of weights that were read, with architecture, residual, preprocessing and passes filled in."""
    sam = build_for(found)
    return {
        **(found.card or {}),
        "architecture": sam.arch,
        "mlp_residual": found.mlp_residual,
        "preprocessing": sam.preprocessing.to_dict(),
        "passes": list(passes_of(found)),
    }


def _notes(found: Weights, copy: Weights, kind: str) -> list[str]:
    """Return what the target does not carry or what became of the residual."""
    notes = []
    target = TARGETS[kind]
    if target.residual not in ("", found.mlp_residual):
        notes.append(
            f"the MLP residual was {found.mlp_residual} and is {target.residual} now: the weights around the "
            "decoder's two MLPs were scaled by two to give exactly the same"
        )
    if not target.encoder_only:
        before, after = build_for(found).preprocessing, build_for(copy).preprocessing
        if before != after:
            notes.append(
                f"the file cannot say how pixels are prepared ({before.scaling}, {before.mode}, "
                f"{before.interpolation}); keep that in mind, or use a name with 'medsam' in it for MedSAM"
            )
        if passes_of(found) != passes_of(copy):
            notes.append(f"the file cannot say which decoder passes it was trained for ({list(passes_of(found))})")
    return notes
