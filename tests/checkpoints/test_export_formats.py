"""Every format to every other one, judged by the packages that the formats belong to."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer
from segment_anything.modeling import Sam as OriginalSam
from torch import Tensor

from ultrasam.checkpoints import conversion, load_network, read_weights, resolve_weights, safe_load, save_checkpoint
from ultrasam.checkpoints.conversion import convert_file
from ultrasam.checkpoints.export import TARGETS, with_residual
from ultrasam.checkpoints.hashing import tensors_sha256
from ultrasam.checkpoints.huggingface import from_huggingface, to_huggingface
from ultrasam.checkpoints.parity import compare, fixed_image, fixed_prompts, network_for, outputs
from ultrasam.errors import CheckpointError
from ultrasam.modeling.build import build_sam
from ultrasam.modeling.sam import Sam

SMALL, SIZE = "vit_tiny", 128
CARD = {
    "architecture": SMALL,
    "mlp_residual": "single",
    "licence": "Apache-2.0",
    "passes": ["single", "multi"],
    "preprocessing": {"square": SIZE, "mode": "pad", "interpolation": "bilinear", "scaling": "mean_std"},
    "training": {"datasets": {"toy": {"images": 3, "masks": 4}}},
}


@pytest.fixture(scope="module")
def model() -> Sam:
    torch.manual_seed(0)
    sam = build_sam(SMALL, SIZE)
    with torch.no_grad():
        for value in sam.parameters():
            # Every number moves away from its start, position tables and norms too.
            value.add_(0.05 * torch.randn_like(value))
    return sam.eval()


@pytest.fixture(scope="module")
def source(model: Sam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "ours.safetensors"
    save_checkpoint(path, model.state_dict(), CARD)
    return path


def fits(kind: str) -> bool:
    return TARGETS[kind].architecture in ("", SMALL) and "vit" in TARGETS[kind].encoders


def name_of(kind: str, ending: str) -> str:
    return kind if TARGETS[kind].suffixes == ("",) else f"{kind}{ending}"


KINDS = [kind for kind in TARGETS if fits(kind)]


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_changes_nothing(
    source: Path, model: Sam, tmp_path: Path, kind: str, ending: str
) -> None:
    out = tmp_path / name_of(kind, ending)
    done = convert_file(source, out, kind)
    assert done.path == out and all(difference.same for difference in done.differences)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    found = read_weights(out)
    encoder = {name: value for name, value in model.state_dict().items() if name.startswith("image_encoder.")}
    if TARGETS[kind].encoder_only:
        assert found.format == kind and set(found.state) == set(encoder)
        assert all(torch.equal(found.state[name], value) for name, value in encoder.items())
        with pytest.raises(CheckpointError, match="no prompt_encoder and no mask_decoder, which sam needs"):
            convert_file(out, tmp_path / "whole.pth", "sam")
        with pytest.raises(CheckpointError, match="predicting needs all three"):
            load_network(out)
        return
    back = tmp_path / "back.pth"
    convert_file(out, back, "ultrasam")
    again = read_weights(back)
    # Halving and doubling are exact.
    state = with_residual(again.state, again.mlp_residual, "single")
    assert set(state) == set(model.state_dict())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    carried = TARGETS[kind].carries_card or ending == ".safetensors"
    assert (again.card is not None and again.card.get("training") == CARD["training"]) == carried


def test_names_of_every_target(source: Path, model: Sam, tmp_path: Path) -> None:
    expected = {
        "ultrasam": ("state_dict", "mask_decoder.iou_token.weight"),
        "training": ("state_dict", "sam.mask_decoder.iou_token.weight"),
        "sam": (None, "mask_decoder.iou_token.weight"),
        "ultrasam_released": ("state_dict", "decoder.layers.0.mlp.layers.1.bias"),
        "mmpretrain": ("state_dict", "backbone.layers.0.ffn.layers.0.0.weight"),
    }
    for kind, (wrapper, name) in expected.items():
        convert_file(source, tmp_path / f"{kind}.pth", kind)
        content = torch.load(tmp_path / f"{kind}.pth", weights_only=True)
        assert name in (content if wrapper is None else content[wrapper]), kind
        assert (wrapper is None) == all(isinstance(value, Tensor) for value in content.values())


def original(model: Sam) -> OriginalSam:
    """The network of the segment-anything package in the sizes of the small one."""
    cells = SIZE // 16
    return OriginalSam(
        ImageEncoderViT(
            depth=4, embed_dim=96, img_size=SIZE, mlp_ratio=4, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            num_heads=3, patch_size=16, qkv_bias=True, use_rel_pos=True, global_attn_indexes=(1, 3), window_size=8,
            out_chans=256,
        ),
        PromptEncoder(
            embed_dim=256, image_embedding_size=(cells, cells), input_image_size=(SIZE, SIZE), mask_in_chans=16
        ),
        MaskDecoder(
            num_multimask_outputs=3, transformer_dim=256, iou_head_depth=3, iou_head_hidden_dim=256,
            transformer=TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=512, num_heads=8),
        ),
    ).eval()  # fmt: skip


@torch.no_grad()
def original_outputs(sam: OriginalSam, square: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Masks 1 to 3 and IoUs of two points, and of a box, by the segment-anything package."""
    prompts, features = fixed_prompts(SIZE, SIZE // 4), sam.image_encoder(square)
    found = []
    for points, boxes in (
        ((prompts.coords[:1, :2], prompts.labels[:1, :2]), None),
        (None, prompts.coords[1:2, :2].reshape(1, 4)),
    ):
        sparse, dense = sam.prompt_encoder(points=points, boxes=boxes, masks=None)
        code = sam.prompt_encoder.get_dense_pe()
        found.append(sam.mask_decoder(features, code, sparse, dense, multimask_output=True))
    return found


@pytest.mark.parametrize("residual", ["single", "double"])
def test_sam_files_load_into_the_original_package_and_give_the_same(
    model: Sam, tmp_path: Path, residual: str
) -> None:
    source = tmp_path / "source.pth"
    save_checkpoint(source, model.state_dict(), {**CARD, "mlp_residual": residual})
    done = convert_file(source, tmp_path / "sam.pth", "sam")
    assert any("residual was double" in note for note in done.notes) == (residual == "double")
    judge = original(model)
    judge.load_state_dict(torch.load(tmp_path / "sam.pth", weights_only=True), strict=True)
    network = load_network(source)
    square = network.sam.preprocessing.batch([fixed_image(SIZE)])
    ours = outputs(network.sam, square)
    for index, (name, (masks, iou)) in enumerate(
        zip(("points", "a box"), original_outputs(judge, square), strict=True)
    ):
        expected = ours[f"masks 1 to 3 of {name}"]
        torch.testing.assert_close(masks[0], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        torch.testing.assert_close(iou[0], ours["predicted IoU, masks 1 to 3"][index], rtol=1e-4, atol=1e-4)
    if residual == "double":
        # Without the change of the MLPs the masks would be others.
        judge.load_state_dict(model.state_dict())
        masks, _ = original_outputs(judge, square)[0]
        assert (masks[0] - ours["masks 1 to 3 of points"]).abs().max() > 0.01 * masks.abs().max()


def test_the_residual_forms_are_inverse(model: Sam) -> None:
    state = model.state_dict()
    single = with_residual(state, "double", "single")
    changed = {name for name in state if not torch.equal(state[name], single[name])}
    layers = "mask_decoder.transformer.layers"
    ends = ("norm2.weight", "norm2.bias", "mlp.lin1.weight")
    assert changed == {f"{layers}.{index}.{end}" for index in range(2) for end in ends}
    back = with_residual(single, "single", "double")
    assert all(torch.equal(back[name], value) for name, value in state.items())


def test_the_residual_forms_give_the_same_on_real_weights() -> None:
    # Real LayerNorms have inputs of little variance, on which their epsilon would show.
    found = replace(read_weights(resolve_weights("litemedsam")), mlp_residual="double")
    single = replace(found, state=with_residual(found.state, "double", "single"), mlp_residual="single")
    for difference in compare(found, single):
        assert difference.largest <= 1e-5 * max(difference.scale, 1), str(difference)


def test_huggingface_names_of_a_vit_b() -> None:
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        theirs = transformers.SamModel(transformers.SamConfig()).state_dict()
        ours = build_sam("vit_b").state_dict()
    tied = "prompt_encoder.shared_embedding.positional_embedding"
    converted = to_huggingface(ours)
    assert {n: v.shape for n, v in converted.items()} == {n: v.shape for n, v in theirs.items() if n != tied}
    assert list(from_huggingface(converted)) == list(ours)


def huggingface_outputs(model: torch.nn.Module, square: Tensor) -> list[Tensor]:
    """Masks 1 to 3 of two points, and of a box, by transformers."""
    prompts = fixed_prompts(SIZE, SIZE // 4)
    with torch.no_grad():
        points = model(
            pixel_values=square, input_points=prompts.coords[None, :1, :2], input_labels=prompts.labels[None, :1, :2]
        )
        box = model(pixel_values=square, input_boxes=prompts.coords[None, 1:2, :2].reshape(1, 1, 4))
    return [answer.pred_masks[0, 0] for answer in (points, box)]


@pytest.mark.parametrize("residual", ["single", "double"])
def test_huggingface_reads_our_folder_and_gives_the_same_masks(
    model: Sam, tmp_path: Path, residual: str
) -> None:
    transformers = pytest.importorskip("transformers")
    source = tmp_path / "source.pth"
    save_checkpoint(source, model.state_dict(), {**CARD, "mlp_residual": residual})
    convert_file(source, tmp_path / "folder", "huggingface")
    judge, info = transformers.SamModel.from_pretrained(tmp_path / "folder", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    network = load_network(source)
    ours = outputs(network.sam, square := network.sam.preprocessing.batch([fixed_image(SIZE)]))
    for name, masks in zip(("points", "a box"), huggingface_outputs(judge.eval(), square), strict=True):
        expected = ours[f"masks 1 to 3 of {name}"]
        torch.testing.assert_close(masks, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    processor = transformers.SamImageProcessor.from_pretrained(tmp_path / "folder")
    assert dict(processor.size)["longest_edge"] == SIZE and processor.image_mean == pytest.approx([0.485, 0.456, 0.406])


@pytest.fixture(scope="module")
def huggingface_model() -> torch.nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    config = transformers.SamConfig(
        vision_config={
            "hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 3, "mlp_dim": 384, "image_size": SIZE,
            "window_size": 8, "global_attn_indexes": [1, 3], "initializer_range": 0.02,
        },
        prompt_encoder_config={"image_size": SIZE, "image_embedding_size": SIZE // 16},
        # SAM's epsilon; the default here, 1e-6, is not what SAM was trained with.
        mask_decoder_config={"mlp_dim": 512, "layer_norm_eps": 1e-5},
    )  # fmt: skip
    return transformers.SamModel(config).eval()


@pytest.mark.parametrize("layout", ["safetensors", "sharded", "bin", "old"])
def test_folders_of_huggingface_are_read_and_give_the_same_masks(
    huggingface_model: torch.nn.Module, tmp_path: Path, layout: str
) -> None:
    folder = tmp_path / "sam-tiny"
    huggingface_model.save_pretrained(folder, max_shard_size="2MB" if layout == "sharded" else "1GB")
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    assert (len(shards) > 1) == (layout == "sharded")
    if layout in ("bin", "old"):
        state = dict(huggingface_model.state_dict())
        if layout == "bin":
            del state["prompt_encoder.shared_embedding.positional_embedding"]
        (folder / "model.safetensors").unlink()
        torch.save(state, folder / "pytorch_model.bin")
    network = load_network(folder)
    assert (network.report.format, network.sam.arch, network.sam.image_size) == ("huggingface", SMALL, SIZE)
    assert network.sam.mlp_residual == "single" and len(network.sha256) == 64
    square = network.sam.preprocessing.batch([fixed_image(SIZE)])
    ours = outputs(network.sam, square)
    for name, masks in zip(("points", "a box"), huggingface_outputs(huggingface_model, square), strict=True):
        expected = ours[f"masks 1 to 3 of {name}"]
        torch.testing.assert_close(masks, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_folders_that_are_no_sam_are_refused(source: Path, tmp_path: Path) -> None:
    good = tmp_path / "good"
    convert_file(source, good, "huggingface")

    def changed(name: str, **changes: object) -> Path:
        folder = tmp_path / name
        shutil.copytree(good, folder)
        config = json.loads((folder / "config.json").read_text())
        for key, value in changes.items():
            part, _, inner = key.partition("__")
            if inner:
                config[part][inner] = value
            else:
                config[part] = value
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    lying = changed("lying index")
    (lying / "model.safetensors").rename(lying.parent / "outside.safetensors")
    table = {"weight_map": {"a": "../outside.safetensors"}}
    (lying / "model.safetensors.index.json").write_text(json.dumps(table))
    empty = changed("empty")
    (empty / "model.safetensors").unlink()
    broken = changed("broken")
    (broken / "config.json").write_text("{")
    cases = {
        changed("sam2", model_type="sam2"): "a model of type 'sam2', expected 'sam'",
        changed("heads", mask_decoder_config__num_attention_heads=4): "num_attention_heads = 4, this network has 8",
        changed("patch", vision_config__patch_size=8): "patch_size = 8, this network has 16",
        lying: "names '../outside.safetensors', which is no file beside it",
        empty: "holds neither model.safetensors nor pytorch_model.bin",
        broken: "is no JSON",
    }
    for folder, message in cases.items():
        with pytest.raises(CheckpointError, match=message) as caught:
            read_weights(folder)
        assert "\n" not in str(caught.value) and folder.name in str(caught.value)
    with pytest.raises(CheckpointError, match=r"without config\.json"):
        read_weights(tmp_path)


def test_lite_and_litemedsam_conversions(tmp_path: Path) -> None:
    done = convert_file(resolve_weights("litemedsam"), tmp_path / "lite.pth", "litemedsam")
    raw, written = safe_load(resolve_weights("litemedsam")), safe_load(tmp_path / "lite.pth")
    assert set(raw) == set(written) and all(torch.equal(written[name], value) for name, value in raw.items())
    assert max(difference.largest for difference in done.differences) == 0
    with pytest.raises(CheckpointError, match=r"huggingface .* cannot hold that architecture"):
        convert_file(tmp_path / "lite.pth", tmp_path / "folder", "huggingface")


def test_a_difference_removes_what_was_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = conversion.write_as

    def spoiled(found, kind, out, card):  # type: ignore[no-untyped-def]
        found.state = {**found.state, "mask_decoder.iou_token.weight": found.state["mask_decoder.iou_token.weight"] + 1}
        real(found, kind, out, card)
        found.state = read_weights(source).state

    monkeypatch.setattr(conversion, "write_as", spoiled)
    (tmp_path / "old.pth").write_bytes(b"old")
    for name, kind in (("new.pth", "sam"), ("folder", "huggingface"), ("old.pth", "ultrasam_released")):
        with pytest.raises(CheckpointError, match=r"do not give the same \(.*largest difference"):
            convert_file(source, tmp_path / name, kind, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["old.pth"]
    assert (tmp_path / "old.pth").read_bytes() == b"old"


def test_parity_sees_every_part(source: Path) -> None:
    for part in ("image_encoder.neck.3.bias", "prompt_encoder.point_embeddings.2.weight",
                 "prompt_encoder.point_embeddings.0.weight", "prompt_encoder.mask_downscaling.6.bias",
                 "mask_decoder.mask_tokens.weight", "mask_decoder.iou_prediction_head.layers.2.bias"):  # fmt: skip
        first, second = read_weights(source), read_weights(source)
        assert all(difference.largest == 0 for difference in compare(first, second))
        second.state[part] = second.state[part] + 0.1
        assert any(not difference.same for difference in compare(first, second)), part
        second.state[part] = second.state[part] * torch.nan
        assert any(not difference.same for difference in compare(first, second)), part


def test_what_cannot_be_converted_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "there.pth").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    for out, kind, message in (
        ("a.bin", "sam", r"written as \.pth or \.safetensors, got 'a\.bin'"),
        ("a.pth", "huggingface", "a folder's name without an ending"),
        ("a.pth", "medsam", "cannot hold that architecture"),
        ("a.pth", "nothing", "no format 'nothing' to write; formats are ultrasam, training"),
        ("there.pth", "sam", "there.pth exists; choose another name, or give --overwrite"),
        ("folder", "huggingface", "folder exists; choose another name$"),
    ):
        with pytest.raises(CheckpointError, match=message):
            convert_file(source, tmp_path / out, kind)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "there.pth"]


def test_the_hash_of_tensors_is_the_same_in_every_container(source: Path, tmp_path: Path) -> None:
    convert_file(source, tmp_path / "a.pth", "ultrasam")
    cards = [read_weights(path).card or {} for path in (source, tmp_path / "a.pth")]
    assert cards[0]["tensors_sha256"] == cards[1]["tensors_sha256"] == tensors_sha256(read_weights(source).state)
    state = dict(reversed(read_weights(source).state.items()))
    assert tensors_sha256(state) == cards[0]["tensors_sha256"]
    name = "mask_decoder.iou_token.weight"
    for other in (state[name] + 1e-6, state[name].half(), state[name].reshape(-1)):
        assert tensors_sha256({**state, name: other}) != cards[0]["tensors_sha256"]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_have_the_permissions_of_other_new_files(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "other").write_bytes(b"")
    save_checkpoint(tmp_path / f"a{suffix}", {"weight": torch.zeros(2)}, {})
    assert (tmp_path / f"a{suffix}").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_encoder_alone_is_compared_alone(source: Path, tmp_path: Path) -> None:
    done = convert_file(source, tmp_path / "vitsam.pth", "mmpretrain")
    assert [difference.what for difference in done.differences] == ["image encoder"]
    bare = {name.removeprefix("backbone."): value for name, value in safe_load(done.path)["state_dict"].items()}
    torch.save(bare, tmp_path / "bare.pth")
    assert read_weights(tmp_path / "bare.pth").format == "mmpretrain"
    assert set(network_for(read_weights(tmp_path / "bare.pth")).state_dict()) == set(read_weights(source).state)
