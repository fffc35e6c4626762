"""Hugging Face ``SamModel``: names, configuration and folders, both ways.

The network is SAM's under other names (table in ``ENCODER``, ``DECODER`` and ``PLAIN``). One thing differs in the
numbers: the decoder's four inner LayerNorms use an epsilon of 1e-6 unless the configuration says SAM's 1e-5; folders
written here say it.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ultrasam.checkpoints.hashing import tensors_sha256
from ultrasam.checkpoints.reading import safe_load
from ultrasam.checkpoints.saving import write_tensors
from ultrasam.errors import CheckpointError
from ultrasam.modeling.build import ARCHITECTURES

SIGN = "vision_encoder.patch_embed.projection.weight"
CONFIG, CARD, PROCESSOR = "config.json", "ultrasam_card.json", "preprocessor_config.json"
SAFETENSORS, TORCH = "model.safetensors", "pytorch_model.bin"
SHARED = "shared_image_embedding.positional_embedding"
TIED = "prompt_encoder.shared_embedding.positional_embedding"
GAUSSIAN = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
JSON_LIMIT = 64 << 20

# (SAM's name, Hugging Face's) as patterns of whole parts; "#" stands for a number.
ENCODER = (
    ("image_encoder.pos_embed", "vision_encoder.pos_embed"),
    ("image_encoder.patch_embed.proj", "vision_encoder.patch_embed.projection"),
    ("image_encoder.blocks.#.norm1", "vision_encoder.layers.#.layer_norm1"),
    ("image_encoder.blocks.#.norm2", "vision_encoder.layers.#.layer_norm2"),
    ("image_encoder.blocks.#", "vision_encoder.layers.#"),
    ("image_encoder.neck.0", "vision_encoder.neck.conv1"),
    ("image_encoder.neck.1", "vision_encoder.neck.layer_norm1"),
    ("image_encoder.neck.2", "vision_encoder.neck.conv2"),
    ("image_encoder.neck.3", "vision_encoder.neck.layer_norm2"),
)
_LAYER, _HYPER = "mask_decoder.transformer.layers.#", "mask_decoder.output_hypernetworks_mlps.#"
_IOU = "mask_decoder.iou_prediction_head"
DECODER = (
    *((f"{_LAYER}.norm{index}", f"{_LAYER}.layer_norm{index}") for index in range(1, 5)),
    ("mask_decoder.transformer.norm_final_attn", "mask_decoder.transformer.layer_norm_final_attn"),
    ("mask_decoder.output_upscaling.0", "mask_decoder.upscale_conv1"),
    ("mask_decoder.output_upscaling.1", "mask_decoder.upscale_layer_norm"),
    ("mask_decoder.output_upscaling.3", "mask_decoder.upscale_conv2"),
    *(
        (f"{head}.layers.{ours}", f"{head}.{theirs}")
        for head in (_HYPER, _IOU)
        for ours, theirs in ((0, "proj_in"), (1, "layers.0"), (2, "proj_out"))
    ),
    ("mask_decoder", "mask_decoder"),
)
_DOWN, _MASK = "prompt_encoder.mask_downscaling", "prompt_encoder.mask_embed"
PROMPTS = (
    (GAUSSIAN, SHARED),
    ("prompt_encoder.point_embeddings.#", "prompt_encoder.point_embed.#"),
    (f"{_DOWN}.0", f"{_MASK}.conv1"),
    (f"{_DOWN}.1", f"{_MASK}.layer_norm1"),
    (f"{_DOWN}.3", f"{_MASK}.conv2"),
    (f"{_DOWN}.4", f"{_MASK}.layer_norm2"),
    (f"{_DOWN}.6", f"{_MASK}.conv3"),
    ("prompt_encoder", "prompt_encoder"),
)
TABLE = ENCODER + DECODER + PROMPTS


def _compiled(table: tuple[tuple[str, str], ...]) -> list[tuple[re.Pattern[str], str]]:
    return [
        (re.compile(re.escape(before).replace(r"\#", r"(\d+)") + r"(?=\.|$)"), after.replace("#", r"\1"))
        for before, after in table
    ]


_TO_SAM = _compiled(tuple((theirs, ours) for ours, theirs in TABLE))
_FROM_SAM = _compiled(TABLE)


def _rename(name: str, rules: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, replacement in rules:
        match = pattern.match(name)
        if match is not None:
            return match.expand(replacement) + name[match.end() :]
    return name


def from_huggingface(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a ``SamModel``'s weights to SAM's names; unknown names stay as they are.

    Raises:
        CheckpointError: the position code, of which older files hold two copies, is not the same in both.
    """
    state = dict(state)
    tied = state.pop(TIED, None)
    if tied is not None and not torch.equal(state.setdefault(SHARED, tied), tied):
        raise CheckpointError(f"{TIED!r} and {SHARED!r} differ, but are one weight; write the file again")
    return {_rename(name, _TO_SAM): value for name, value in state.items()}


def to_huggingface(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename SAM's weights to a ``SamModel``'s, the inverse of ``from_huggingface`` (314 names of ViT-B)."""
    return {_rename(name, _FROM_SAM): value for name, value in state.items()}


def config_for(architecture: str, image_size: int) -> dict[str, Any]:
    """Return the ``config.json`` of an architecture.

    Raises:
        CheckpointError: its encoder is not a ViT.
    """
    spec = ARCHITECTURES[architecture]
    if spec.encoder != "vit":
        raise CheckpointError(
            f"Hugging Face's SamModel has a ViT encoder, {architecture} has another; choose another format"
        )
    args = spec.encoder_args
    return {
        "architectures": ["SamModel"],
        "model_type": "sam",
        "vision_config": {
            "model_type": "sam_vision_model",
            "hidden_size": args["dim"],
            "num_hidden_layers": args["depth"],
            "num_attention_heads": args["heads"],
            "mlp_dim": 4 * args["dim"],
            "mlp_ratio": 4.0,
            "image_size": image_size,
            "patch_size": 16,
            "output_channels": 256,
            "window_size": args.get("window", 14),
            "global_attn_indexes": list(args["global_blocks"]),
            "layer_norm_eps": 1e-6,
            "num_pos_feats": 128,
        },
        "prompt_encoder_config": {
            "model_type": "sam_prompt_encoder",
            "hidden_size": 256,
            "image_size": image_size,
            "patch_size": 16,
            "image_embedding_size": image_size // 16,
            "layer_norm_eps": 1e-6,
        },
        # SAM's LayerNorms of the two-way blocks; the default here would be 1e-6.
        "mask_decoder_config": {
            "model_type": "sam_mask_decoder",
            "mlp_dim": spec.decoder_mlp_dim,
            "layer_norm_eps": 1e-5,
        },
    }


def processor_for(preprocessing: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the ``preprocessor_config.json`` that does the same to pixels; None where that class cannot."""
    plain = preprocessing.get("mode", "pad") == "pad" and preprocessing.get("scaling", "mean_std") == "mean_std"
    resample = {"bilinear": 2, "bicubic": 3}.get(preprocessing.get("interpolation", "bilinear"))
    if not plain or resample is None:
        return None
    square = int(preprocessing["square"])
    return {
        "image_processor_type": "SamImageProcessor",
        "processor_class": "SamProcessor",
        "do_resize": True,
        "size": {"longest_edge": square},
        "resample": resample,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [value / 255 for value in preprocessing["mean"]],
        "image_std": [value / 255 for value in preprocessing["std"]],
        "do_pad": True,
        "pad_size": {"height": square, "width": square},
        "mask_size": {"longest_edge": square // 4},
        "mask_pad_size": {"height": square // 4, "width": square // 4},
        "do_convert_rgb": True,
    }


def write_folder(
    folder: Path, state: Mapping[str, Tensor], architecture: str, card: Mapping[str, Any], *, safe: bool = True
) -> None:
    """Write a folder that ``SamModel.from_pretrained`` reads: configuration, weights, processor and our card.

    Args:
        folder: must not exist, or be empty.
        state: all weights by SAM's names, of the single MLP residual.
        architecture: name, with a ViT encoder.
        card: with ``preprocessing``.
        safe: write model.safetensors, else pytorch_model.bin.

    Raises:
        CheckpointError: the folder holds files, or cannot be written; nothing is left of it then.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder} exists and is not an empty folder; choose another name")
    config = config_for(architecture, int(card["preprocessing"]["square"]))
    names = {name: value.detach().cpu().clone().contiguous() for name, value in to_huggingface(state).items()}
    card = {**card, "tensors_sha256": tensors_sha256(names)}
    texts = {CONFIG: config, CARD: card, PROCESSOR: processor_for(card["preprocessing"])}
    temporary = folder.with_name(f".{folder.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir(parents=True)
        write_tensors(temporary / (SAFETENSORS if safe else TORCH), names, {"card": json.dumps(card)})
        for name, content in texts.items():
            if content is not None:
                (temporary / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        temporary.replace(folder)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written ({error}); check folder and free space") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_folder(path: Path) -> bool:
    """Whether a path is a folder with a ``config.json``."""
    return path.is_dir() and (path / CONFIG).is_file()


def load_folder(folder: Path) -> dict[str, Any]:
    """Read a Hugging Face folder without running anything of it.

    Returns:
        ``state_dict`` by Hugging Face's names, ``config``, and ``card`` where the folder has one.

    Raises:
        CheckpointError: no folder of a SamModel, a file missing or damaged, or a configuration that this network
            cannot follow.
    """
    if not is_folder(folder):
        raise CheckpointError(
            f"{folder} is a folder without {CONFIG}; expected a weight file, or the folder of a Hugging Face SamModel"
        )
    config = _read_json(folder / CONFIG)
    _check_config(config, folder)
    state: dict[str, Tensor] = {}
    card: object = None
    for path in _weight_files(folder):
        content = safe_load(path)
        card = content.get("card", card)
        inner = content.get("state_dict", content)
        for name, value in inner.items():
            if isinstance(value, Tensor):
                if name in state:
                    raise CheckpointError(f"{folder} holds {name!r} in two of its files; download the folder again")
                state[name] = value
    if (folder / CARD).is_file():
        card = _read_json(folder / CARD)
    result: dict[str, Any] = {"state_dict": state, "config": config}
    return {**result, "card": card} if isinstance(card, Mapping) else result


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > JSON_LIMIT:
            raise CheckpointError(f"{path} is larger than any configuration; download the folder again")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error}); download the folder again") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no JSON ({error}); download the folder again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a table of values")
    return content


def _weight_files(folder: Path) -> list[Path]:
    """Return the folder's weight file, or all shards that its index names."""
    for name in (SAFETENSORS, TORCH):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if not index.is_file():
            continue
        table = _read_json(index).get("weight_map")
        if not isinstance(table, dict) or not table:
            raise CheckpointError(f"{index} has no weight_map; download the folder again")
        shards = sorted({str(shard) for shard in table.values()})
        for shard in shards:
            # A name with a folder in it could lead anywhere.
            if Path(shard).name != shard or "\\" in shard or not (folder / shard).is_file():
                raise CheckpointError(f"{index} names {shard!r}, which is no file beside it; download the missing part")
        return [folder / shard for shard in shards]
    raise CheckpointError(f"{folder} holds neither {SAFETENSORS} nor {TORCH}; download the weights too")


def _check_config(config: Mapping[str, Any], folder: Path) -> None:
    """Refuse a model of another kind, and settings that change the numbers and that this network does not have."""
    if config.get("model_type") != "sam":
        raise CheckpointError(
            f"{folder} is a model of type {config.get('model_type')!r}, expected 'sam'; "
            "other Hugging Face models cannot be read"
        )
    vision, decoder = config.get("vision_config") or {}, config.get("mask_decoder_config") or {}
    prompts = config.get("prompt_encoder_config") or {}
    expected: tuple[tuple[str, Mapping[str, Any], str, Any], ...] = (
        ("vision_config", vision, "patch_size", 16),
        ("vision_config", vision, "hidden_act", "gelu"),
        ("vision_config", vision, "layer_norm_eps", 1e-6),
        ("vision_config", vision, "use_rel_pos", True),
        ("vision_config", vision, "use_abs_pos", True),
        ("vision_config", vision, "qkv_bias", True),
        ("prompt_encoder_config", prompts, "hidden_act", "gelu"),
        ("mask_decoder_config", decoder, "hidden_act", "relu"),
        ("mask_decoder_config", decoder, "num_attention_heads", 8),
        ("mask_decoder_config", decoder, "attention_downsample_rate", 2),
        ("mask_decoder_config", decoder, "num_multimask_outputs", 3),
    )
    for part, values, key, wanted in expected:
        found = values.get(key, wanted) if isinstance(values, Mapping) else values
        if found != wanted:
            raise CheckpointError(
                f"{folder / CONFIG} has {part}.{key} = {found!r}, this network has {wanted!r}; it cannot be read"
            )
