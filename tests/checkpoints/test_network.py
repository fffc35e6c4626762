"""The network that inference gets: passes, form, preprocessing and size of every family."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ultrasam.checkpoints import load_network, resolve_weights, save_checkpoint, sha256_of
from ultrasam.checkpoints.convert import convert_to_released
from ultrasam.errors import CheckpointError
from ultrasam.modeling.build import build_sam
from ultrasam.modeling.sam import Preprocessing

SMALL, SIZE = "vit_tiny", 128


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn_like(value) for name, value in build_sam(SMALL, SIZE).state_dict().items()}


def test_every_family_has_its_passes_and_form(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "sam.pth")
    torch.save({"state_dict": convert_to_released(state)}, tmp_path / "released.pth")
    save_checkpoint(tmp_path / "ours.pth", state, {"passes": ["multi"], "mask_prompt": False})
    expected: dict[str, tuple[tuple[str, ...], str, bool]] = {
        "sam": ((), "single", True),
        "released": (("single", "multi"), "double", True),
        "ours": (("multi",), "single", False),
    }
    for name, (passes, residual, mask_prompt) in expected.items():
        path = tmp_path / f"{name}.pth"
        network = load_network(path)
        assert (network.passes, network.sam.mlp_residual, network.mask_prompt) == (passes, residual, mask_prompt)
        assert network.path == path and network.sha256 == sha256_of(path) and not network.report.missing
        assert all(torch.equal(value, state[key]) for key, value in network.sam.state_dict().items())
        assert not network.sam.training and not any(value.requires_grad for value in network.sam.parameters())
        card = network.card
        assert (card["architecture"], card["mlp_residual"]) == (SMALL, residual)
        assert Preprocessing(**card["preprocessing"]) == network.sam.preprocessing
        assert network.sam.image_size == network.sam.preprocessing.square == SIZE
    lite = load_network("litemedsam")
    assert lite.passes == ("single",) and lite.sam.preprocessing.scaling == "min_max"


def test_the_card_decides_about_pixels(tmp_path: Path, state: dict[str, Tensor]) -> None:
    pixels = {"square": SIZE, "mode": "squash", "interpolation": "bicubic", "scaling": "min_max", "mean": [1, 2, 3],
              "std": [4, 5, 6]}  # fmt: skip
    save_checkpoint(tmp_path / "a.safetensors", state, {"preprocessing": pixels})
    found = load_network(tmp_path / "a.safetensors").sam.preprocessing
    assert found.to_dict() == {**pixels, "mean": (1, 2, 3), "std": (4, 5, 6)}


def test_another_size_on_request(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "a.pth")
    network = load_network(tmp_path / "a.pth", image_size=192)
    assert network.sam.image_size == network.card["preprocessing"]["square"] == 192
    assert "image_encoder.pos_embed" in network.report.resized
    with pytest.raises(CheckpointError, match="multiple of 16, got 100"):
        load_network(tmp_path / "a.pth", image_size=100)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"architecture": "vit_b"}, "its card says architecture 'vit_b', its weights are vit_tiny"),
        ({"passes": ["single", "twice"]}, r"its card has passes \['single', 'twice'\]"),
        ({"passes": "single"}, "its card has passes 'single'"),
        ({"preprocessing": {"mode": "stretch"}}, "preprocessing in its card is not known here .*'stretch'"),
        ({"preprocessing": {"colour": "grey"}}, "preprocessing in its card is not known here .*colour"),
        ({"preprocessing": [1]}, r"must be a table of values, got \[1\]"),
    ],
)
def test_a_card_that_cannot_be_followed_is_refused(
    tmp_path: Path, state: dict[str, Tensor], card: dict[str, Any], message: str
) -> None:
    save_checkpoint(tmp_path / "a.pth", state, card)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_network(tmp_path / "a.pth")
    assert "a.pth" in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_architecture_cannot_be_built(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save({name: value for name, value in state.items() if ".blocks.3." not in name}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"unnamed vit .*cannot be built; known architectures are vit_b"):
        load_network(tmp_path / "a.pth")


def test_loading_leaves_random_numbers_alone() -> None:
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    load_network(resolve_weights("litemedsam"))
    assert torch.equal(torch.rand(3), expected)
