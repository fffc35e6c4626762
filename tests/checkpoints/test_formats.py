"""Families of weight files, their names and architectures."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from segment_anything import sam_model_registry
from torch import Tensor

from ultrasam.checkpoints import (
    card_named,
    convert_released,
    convert_to_released,
    describe,
    detect_format,
    load_checkpoint,
    read_weights,
    unwrap,
)
from ultrasam.errors import CheckpointError
from ultrasam.modeling.build import ARCHITECTURES, build_sam

SMALL = "vit_tiny"


@pytest.fixture(scope="module")
def small_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    state = build_sam(SMALL).state_dict()
    return {name: torch.randn_like(value) for name, value in state.items()}


def meta_state(arch: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        return build_sam(arch).state_dict()


@pytest.mark.shared
def test_released_names_are_exactly_those_of_a_vit_b(shared: Path) -> None:
    shapes = json.loads((shared / "reference/ultrasam_state_dict_keys.json").read_text())
    released = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    assert detect_format({"state_dict": released}) == "ultrasam_released"
    converted = convert_released(released)
    # The judge is the package that SAM's weights are made for.
    with torch.device("meta"):
        expected = sam_model_registry["vit_b"]().state_dict()
    assert {n: v.shape for n, v in converted.items()} == {n: v.shape for n, v in expected.items()}
    assert {n: list(v.shape) for n, v in convert_to_released(converted).items()} == shapes


@pytest.mark.shared
def test_stand_in_released_file_lands_where_it_should(shared: Path, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_weights", shared / "reference/make_weights.py")
    assert spec is not None and spec.loader is not None
    make_weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_weights)
    released = make_weights.build(str(shared / "reference/ultrasam_state_dict_keys.json"))
    path = tmp_path / "UltraSam.pth"
    torch.save({"state_dict": released, "meta": {}}, path)
    model = build_sam("vit_b")

    report = load_checkpoint(model, path)

    assert (report.format, report.arch.name, report.mlp_residual) == ("ultrasam_released", "vit_b", "double")
    assert model.mlp_residual == "double"
    assert not report.missing and not report.unexpected
    encoder, prompts, decoder = model.image_encoder, model.prompt_encoder, model.mask_decoder
    table = released["prompt_encoder.label_encoder.label_embedding.weight"]
    cross = "decoder.layers.1.cross_attn_image_to_token.attn."
    attention = decoder.transformer.layers[1].cross_attn_image_to_token
    expected = [
        (prompts.no_mask_embed.weight, table[0:1]),
        (prompts.point_embeddings[0].weight, table[1:2]),
        (prompts.point_embeddings[1].weight, table[2:3]),
        (prompts.point_embeddings[2].weight, table[3:4]),
        (prompts.point_embeddings[3].weight, table[4:5]),
        (prompts.not_a_point_embed.weight, table[5:6]),
        (decoder.mask_tokens.weight, table[6:10]),
        (decoder.iou_token.weight, table[10:11]),
        (encoder.patch_embed.proj.weight, released["backbone.patch_embed.projection.weight"]),
        (encoder.blocks[10].mlp.lin2.bias, released["backbone.layers.10.ffn.layers.1.bias"]),
        (encoder.blocks[3].norm2.weight, released["backbone.layers.3.ln2.weight"]),
        (encoder.neck[3].bias, released["backbone.channel_reduction.3.bias"]),
        (attention.q_proj.weight, released[cross + "q_proj_weight"]),
        (attention.q_proj.bias, released[cross + "in_proj_bias"][:128]),
        (attention.k_proj.bias, released[cross + "in_proj_bias"][128:256]),
        (attention.v_proj.bias, released[cross + "in_proj_bias"][256:]),
        (attention.out_proj.bias, released[cross + "out_proj.bias"]),
        (decoder.transformer.layers[0].norm4.bias, released["decoder.layers.0.norm4.bias"]),
        (decoder.transformer.layers[0].mlp.lin1.weight, released["decoder.layers.0.mlp.layers.0.0.weight"]),
        (decoder.transformer.norm_final_attn.weight, released["decoder.post_norm.weight"]),
        (decoder.output_upscaling[3].weight, released["bbox_head.output_upscaling.3.weight"]),
        (
            decoder.output_hypernetworks_mlps[2].layers[1].weight,
            released["bbox_head.output_hypernetworks_mlps.2.layers.1.weight"],
        ),
    ]
    for found, value in expected:
        assert torch.equal(found.detach(), value)
    back = convert_to_released(read_weights(path).state)
    assert set(back) == set(released)
    assert all(torch.equal(back[name], released[name]) for name in released)


def test_conversion_to_released_names_and_back(small_state: dict[str, Tensor]) -> None:
    released = convert_to_released(small_state)
    common = ("prompt_encoder.mask_downscaling.", "prompt_encoder.pe_layer.")
    assert all(name.startswith(common) for name in set(released) & set(small_state))
    assert detect_format(released) == "ultrasam_released"
    back = convert_released(released)
    assert set(back) == set(small_state)
    assert all(torch.equal(back[name], small_state[name]) for name in back)


def test_conversion_refuses_what_it_cannot_split_or_join(small_state: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"must have 11 rows, found a shape of \(10, 8\)"):
        convert_released({"prompt_encoder.label_encoder.label_embedding.weight": torch.zeros(10, 8)})
    with pytest.raises(CheckpointError, match="three biases"):
        convert_released({"decoder.layers.0.self_attn.attn.in_proj_bias": torch.zeros(4)})
    for name in ("mask_decoder.iou_token.weight", "mask_decoder.transformer.layers.0.self_attn.k_proj.bias"):
        part = {key: value for key, value in small_state.items() if key != name}
        with pytest.raises(CheckpointError, match=name):
            convert_to_released(part)


@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "sam.", "detector.", "module.sam.", "module.model."]
)
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_prefixes_and_wrappers(small_state: dict[str, Tensor], prefix: str, wrapper: str | None) -> None:
    named = {prefix + name: value for name, value in small_state.items()}
    named[prefix + "pixel_mean"] = torch.zeros(3, 1, 1)
    content = named if wrapper is None else {wrapper: named, "epoch": 3, "optimizer": {}}
    state = unwrap(content)
    assert set(state) == set(small_state)
    ours = wrapper == "state_dict" and prefix in ("sam.", "module.sam.")
    assert detect_format(content) == ("ultrasam" if ours else "sam")


def test_formats_of_other_files(small_state: dict[str, Tensor]) -> None:
    assert detect_format({"card": {"architecture": SMALL}, "state_dict": small_state}) == "ultrasam"
    assert detect_format({"format": "ultrasam-training-1", "state_dict": small_state}) == "ultrasam"
    assert detect_format(meta_state("tiny_vit")) == "litemedsam"
    assert detect_format({"card": {"a": 1}, "state_dict": meta_state("tiny_vit")}) == "ultrasam"
    with pytest.raises(CheckpointError, match=r"no known family \(first names: fc\.weight\)"):
        detect_format({"fc.weight": torch.ones(1)})
    with pytest.raises(CheckpointError, match=r"no weights \(found: epoch\)"):
        detect_format({"epoch": 1})
    with pytest.raises(CheckpointError, match=r"state of an optimizer and no weights \(found: optimizer, epoch\)"):
        detect_format({"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}, "epoch": 1})
    with pytest.raises(CheckpointError, match=r"no known family \(first names: conv1\.weight, bn1\.weight"):
        detect_format({name: torch.ones(1) for name in ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight")})
    with pytest.raises(CheckpointError, match=r"'a' twice"):
        unwrap({"a": torch.ones(1), "module.a": torch.ones(1)})


@pytest.mark.parametrize("arch", list(ARCHITECTURES))
def test_architectures_are_recognised(arch: str) -> None:
    state = meta_state(arch)
    info = describe(state)
    assert info.name == arch
    args = ARCHITECTURES[arch].encoder_args
    assert info.image_size == ARCHITECTURES[arch].image_size
    assert info.decoder_mlp_dim == ARCHITECTURES[arch].decoder_mlp_dim
    if ARCHITECTURES[arch].encoder == "vit":
        assert (info.dim, info.depth, info.heads) == (args["dim"], args["depth"], args["heads"])
        assert info.global_blocks == args["global_blocks"]
        assert info.window == args.get("window", 14)
        assert info.patch_size == 16
    assert arch in str(info)


@pytest.mark.parametrize("arch", ["vit_b", "vit_l", "vit_h"])
def test_weights_of_the_original_package_are_recognised(arch: str) -> None:
    with torch.device("meta"):
        state = sam_model_registry[arch]().state_dict()
    assert detect_format(state) == "sam"
    info = describe(unwrap(state))
    assert (info.name, info.image_size) == (arch, 1024)


def test_an_unknown_architecture_is_described_without_a_name() -> None:
    state = meta_state("vit_b")
    cut = {name: value for name, value in state.items() if ".blocks.11." not in name}
    info = describe(cut)
    assert (
        info.name is None
        and info.depth == 11
        and str(info).startswith("unnamed vit (768 channels, 11 blocks")
    )
    assert describe({k: v for k, v in state.items() if "mask_decoder" not in k}).decoder_mlp_dim == 0
    with pytest.raises(CheckpointError, match="no image encoder"):
        describe({"a": torch.ones(1)})


def test_cards_are_copies_and_unknown_names_are_listed() -> None:
    card = card_named("medsam")
    assert card["preprocessing"]["mode"] == "squash" and card["preprocessing"]["scaling"] == "min_max"
    card["preprocessing"]["mode"] = "changed"
    assert card_named("medsam")["preprocessing"]["mode"] == "squash"
    assert card_named("medsam_vit_b") == card_named("medsam")
    assert card_named("ultrasam")["mlp_residual"] == "double"
    with pytest.raises(CheckpointError, match=r"'nothing'; known are sam_vit_b, .*medsam"):
        card_named("nothing")
