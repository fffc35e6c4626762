"""Adapter files: a few megabytes of tensors and a card that names the base they belong to by its hash.

A base is known by the SHA-256 of its tensors' names, shapes and bytes, whatever file they lie in, without those that
the adapter brings itself. The card of an adapter file is that of its training with ``kind`` "adapter", and::

    adapter    method, options, base: {name, sha256}
    trainable  numbers that were trained, by part
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ultrasam.adapters import samus
from ultrasam.adapters.attach import adapter_names, attach, attached, detach, merge, pixels_of
from ultrasam.adapters.options import plain_options, read_options
from ultrasam.checkpoints.cards import ADAPTER, is_adapter
from ultrasam.errors import CheckpointError, ConfigError
from ultrasam.modeling.sam import Sam


@dataclass
class AdapterFile:
    """An adapter file, read.

    Attributes:
        path: the file.
        card: see above.
        tensors: by SAM's names and the adapter's own.
    """

    path: Path
    card: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def method(self) -> str:
        """The kind of adapter."""
        return str(self.card["adapter"]["method"])

    @property
    def base(self) -> dict[str, Any]:
        """Name and hash of the base."""
        return dict(self.card["adapter"]["base"])


def tensor_digests(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Return a SHA-256 of each tensor: its name, type, shape and bytes."""
    found = {}
    for name, value in state.items():
        plain = value.detach().cpu().contiguous()
        digest = hashlib.sha256(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
        found[name] = digest.hexdigest()
    return found


def base_hash(digests: Mapping[str, str], residual: str, without: Iterable[str] = ()) -> str:
    """Return the hash of a base.

    Args:
        digests: as ``tensor_digests`` gives them.
        residual: form of the decoder's MLP residual.
        without: names that the adapter brings.
    """
    left_out = set(without)
    lines = [f"{name} {digest}" for name, digest in sorted(digests.items()) if name not in left_out]
    return hashlib.sha256("\n".join([f"residual {residual}", *lines]).encode()).hexdigest()


def adapter_card(sam: Sam, base_name: str, digests: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return what a card says of the adapter on a network: method, options, base.

    Args:
        sam: the adapted network.
        base_name: what people call the base.
        digests: of the network's tensors, where they are known already.
    """
    record = attached(sam)
    if record is None:
        raise CheckpointError("the network has no adapter to describe; attach one first")
    digests = tensor_digests(sam.state_dict()) if digests is None else digests
    sha256 = base_hash(digests, sam.mlp_residual, adapter_names(sam))
    return {
        "method": record.method,
        "options": plain_options(record.options),
        "base": {"name": base_name, "sha256": sha256},
    }


def save_adapter(
    path: str | Path, sam: Sam, card: Mapping[str, Any], state: Mapping[str, Tensor] | None = None
) -> None:
    """Write the adapter on a network.

    Args:
        path: ending in .safetensors.
        sam: the adapted network.
        card: with ``adapter`` as ``adapter_card`` gives it; architecture, residual and pixels are set here.
        state: the network's weights by name, where its own are sharded over processes.

    Raises:
        CheckpointError: it cannot be written, or the card names no base.
    """
    from ultrasam.checkpoints import save_checkpoint

    if "base" not in card.get("adapter", {}):
        raise CheckpointError(f"cannot write {path}: its card names no base; pass one with adapter_card()")
    state = sam.state_dict() if state is None else state
    full = {
        **card,
        "kind": ADAPTER,
        "architecture": sam.arch,
        "mlp_residual": sam.mlp_residual,
        "preprocessing": sam.preprocessing.to_dict(),
    }
    save_checkpoint(path, {name: state[name] for name in adapter_names(sam)}, full)


def read_adapter(path: str | Path) -> AdapterFile:
    """Read an adapter file; no code in it runs.

    Raises:
        CheckpointError: it is none.
    """
    from ultrasam.checkpoints import safe_load
    from ultrasam.checkpoints.formats import card_of

    path = Path(path)
    content = safe_load(path)
    card = card_of(content)
    if not is_adapter(card):
        raise CheckpointError(f"{path} is no adapter file (its card names none); load it as weights")
    assert card is not None
    inner = card.get("adapter")
    base = inner.get("base") if isinstance(inner, dict) else None
    if not isinstance(base, dict) or not isinstance(base.get("sha256"), str):
        raise CheckpointError(f"{path} is damaged: its card names no base; write it again")
    return AdapterFile(path, card, dict(content.get("state_dict", {})))


def apply_adapter(sam: Sam, path: str | Path, base_name: str = "the weights loaded") -> dict[str, Any]:
    """Put an adapter file onto a network that holds its base.

    Args:
        sam: the plain network, float32.
        path: the file.
        base_name: what the loaded weights are called, for the message.

    Returns:
        The file's card. ``sam.preprocessing`` is the adapter's then.

    Raises:
        CheckpointError: the file is none, or belongs to another base; the network is as before.
    """
    found = read_adapter(path)
    put_on_base(sam, found, base_name)
    return found.card


def put_on_base(sam: Sam, found: AdapterFile, base_name: str) -> None:
    """Put an adapter that was read onto a network that holds its base; see ``apply_adapter``."""
    require_base(found, sam.arch, sam.mlp_residual, tensor_digests(sam.state_dict()), base_name)
    put_on(sam, found)


def require_base(found: AdapterFile, arch: str, residual: str, digests: Mapping[str, str], base_name: str) -> None:
    """Refuse a base that an adapter was not trained on.

    Args:
        found: the adapter.
        arch: architecture of the network.
        residual: its form of the decoder's MLP residual.
        digests: of its tensors.
        base_name: what it is called, for the message.

    Raises:
        CheckpointError: names both bases and both hashes.
    """
    base = found.base
    wanted, name = str(base["sha256"]), base.get("name") or "weights without a name"
    if found.card.get("architecture") != arch:
        raise CheckpointError(
            f"the adapter {found.path} belongs to {name!r} of the architecture {found.card.get('architecture')!r}, "
            f"but {base_name!r} is {arch!r}; load the base that it was trained on"
        )
    sha256 = base_hash(digests, residual, found.tensors)
    if sha256 != wanted:
        raise CheckpointError(
            f"the adapter {found.path} belongs to {name!r} (hash of its tensors {wanted}), but {base_name!r} has the "
            f"hash {sha256}; load the base that it was trained on"
        )


def put_on(sam: Sam, found: AdapterFile) -> None:
    """Attach an adapter whose base was checked, and load its tensors.

    Raises:
        CheckpointError: its card or tensors do not fit; the network is as before.
    """
    replaced = {name: value.clone() for name, value in sam.state_dict().items() if name in found.tensors}
    try:
        record = attach(sam, found.method, read_options(found.method, found.card["adapter"].get("options")))
    except ConfigError as error:
        raise CheckpointError(f"the adapter {found.path} does not fit: {error}") from error
    # Tables that SAMUS resizes come back with their modules; the rest was written over.
    kept = sam.state_dict()
    record.weights = {n: v for n, v in replaced.items() if kept[n].shape == v.shape}
    try:
        load_tensors(sam, found)
        sam.preprocessing = pixels_of(found.card["preprocessing"])
    except (CheckpointError, TypeError, ValueError, KeyError) as error:
        detach(sam)
        raise CheckpointError(f"the adapter {found.path} is damaged ({error}); write it again") from error
    for module in record.modules:
        module.to(sam.mask_decoder.iou_token.weight.device)


def load_tensors(sam: Sam, found: AdapterFile) -> None:
    """Copy the tensors of a file into the adapter on a network.

    Raises:
        CheckpointError: names or shapes differ.
    """
    own = sam.state_dict()
    names = adapter_names(sam)
    wrong = sorted(set(names) ^ set(found.tensors))
    wrong += [n for n in names if n in found.tensors and own[n].shape != found.tensors[n].shape]
    if wrong:
        raise CheckpointError(f"{found.path} does not fit this adapter: {wrong[0]} is missing, unknown or misshapen")
    sam.load_state_dict(found.tensors, strict=False)


def prepare_adapted(sam: Sam, card: Mapping[str, Any]) -> None:
    """Put the adapter that a whole checkpoint's card names onto a plain network, before the checkpoint is loaded.

    Raises:
        CheckpointError: it does not fit.
    """
    inner = card["adapter"]
    try:
        attach(sam, str(inner["method"]), read_options(str(inner["method"]), inner.get("options")))
        sam.preprocessing = pixels_of(card["preprocessing"])
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        detach(sam)
        raise CheckpointError(f"the card's adapter does not fit the network: {error}") from error


def load_into(sam: Sam, path: str | Path, base_name: str = "the base of the configuration") -> str:
    """Load a file into a network that has an adapter: the base's weights, or the adapter's.

    Args:
        sam: the adapted network; its parameters stay the same objects.
        path: plain weights of any known family, or an adapter file of the same method.
        base_name: what the present base is called, for messages.

    Returns:
        What was loaded, for people.

    Raises:
        CheckpointError: it does not fit.
    """
    from ultrasam.checkpoints import read_weights, safe_load
    from ultrasam.checkpoints.formats import card_of

    record = attached(sam)
    assert record is not None
    if is_adapter(card_of(safe_load(path))):
        found = read_adapter(path)
        if (found.method, read_options(found.method, found.card["adapter"].get("options"))) != (
            record.method,
            record.options,
        ):
            raise CheckpointError(f"{path} is another adapter than the configuration's; use its own configuration")
        require_base(found, sam.arch, sam.mlp_residual, tensor_digests(sam.state_dict()), base_name)
        load_tensors(sam, found)
        return f"the adapter {path} ({found.method}, {len(found.tensors)} tensors)"
    weights = read_weights(path)
    own, brought = sam.state_dict(), set(adapter_names(sam))
    state = dict(weights.state)
    if record.method == "samus":
        for name in brought & set(state):
            if own[name].ndim == 2 and name.endswith((".rel_pos_h", ".rel_pos_w")):
                state[name] = samus.resized_table(state[name], own[name].shape[0])
    # An adapter's own names may be missing, those of SAM may not.
    required = [name for name in own if name not in brought or not _is_new(name)]
    wrong = [name for name in required if name not in state or state[name].shape != own[name].shape]
    wrong += [name for name in state if name not in own]
    if wrong:
        raise CheckpointError(
            f"{path} is {weights.arch} and does not fit the adapted network ({sam.arch}): {wrong[0]} is missing, "
            "unknown or of another shape; use weights of the configuration's architecture"
        )
    sam.load_state_dict(state, strict=False)
    sam.set_mlp_residual(weights.mlp_residual)
    return f"{len(state)} tensors of {path} below a {record.method} adapter"


def merge_adapter(base: str | Path, adapter: str | Path, out: str | Path) -> None:
    """Write plain weights into which a LoRA file is folded; they load without peft and run at SAM's speed.

    Args:
        base: file or name of the base.
        adapter: the LoRA file.
        out: file to write, .safetensors or .pth.

    Raises:
        CheckpointError: the files do not belong together, or it is no LoRA.
    """
    from ultrasam.checkpoints import read_weights, resolve_weights, save_checkpoint
    from ultrasam.modeling.build import build_sam

    path = resolve_weights(base)
    weights = read_weights(path)
    if weights.arch.name is None:
        raise CheckpointError(f"{path} is {weights.arch}, which no architecture here is; use another base")
    sam = build_sam(weights.arch.name, weights.arch.image_size)
    sam.load_state_dict(weights.state)
    sam.set_mlp_residual(weights.mlp_residual)
    card = apply_adapter(sam, adapter, str(base))
    try:
        merge(sam)
    except ConfigError as error:
        raise CheckpointError(f"{adapter}: {error}") from error
    plain = {name: value for name, value in card.items() if name not in ("kind", "adapter", "trainable")}
    plain["preprocessing"] = sam.preprocessing.to_dict()
    plain["merged"] = {"adapter": Path(adapter).name, "base": card["adapter"]["base"]}
    save_checkpoint(out, sam.state_dict(), plain)


def _is_new(name: str) -> bool:
    """Whether a name of an adapter's file is none of SAM's."""
    return not name.endswith((".rel_pos_h", ".rel_pos_w")) and name.startswith("image_encoder.")
