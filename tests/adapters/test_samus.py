"""SAMUS against its published forward pass, rebuilt by hand around segment-anything's layers."""

import pytest
import torch
from small_encoders import DIM, HEADS, randomize, reference, small_encoder
from torch.nn import functional as F

from ultrasam.adapters.attach import adapter_names, attach, detach, set_trainable
from ultrasam.adapters.options import SamusOptions
from ultrasam.adapters.samus import resized_table, samus_encoder, trained_parts
from ultrasam.errors import ConfigError
from ultrasam.modeling.build import build_sam
from ultrasam.modeling.prompt_encoder import Prompts

# The base has 10 cells a side, SAMUS 5, as SAM's 64 and SAMUS's 32.
BASE, SIDE, GRID = 160, 40, 5


def conv(state, name, x):
    """3 x 3 convolution without bias, normalisation over channels with 1e-6, GELU; ``name`` holds its first index."""
    prefix, first = name.rsplit(".", 1)
    x = F.conv2d(x, state[f"{prefix}.{first}.weight"], padding=1)
    norm = f"{prefix}.{int(first) + 1}"
    mean, variance = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
    x = (x - mean) / torch.sqrt(variance + 1e-6)
    return F.gelu(x * state[f"{norm}.weight"][:, None, None] + state[f"{norm}.bias"][:, None, None])


def linear(state, name, x):
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def bottleneck(state, name, x):
    return linear(state, f"{name}.D_fc2", F.gelu(linear(state, f"{name}.D_fc1", x)))


def cross_attention(state, name, tokens, branch):
    """Tokens attend to the branch, head by head."""
    batch, height, width, dim = tokens.shape
    cells = branch.flatten(2).transpose(1, 2)
    q, k, v = (linear(state, f"{name}.{part}", x) for part, x in
               (("q", tokens.flatten(1, 2)), ("k", cells), ("v", cells)))  # fmt: skip
    out = torch.empty(batch, height * width, dim)
    size = dim // HEADS
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        scores = (q[..., part] @ k[..., part].transpose(1, 2) * size**-0.5).softmax(-1)
        out[..., part] = scores @ v[..., part]
    return linear(state, f"{name}.proj", out).reshape(batch, height, width, dim)


def published(truth, state, x):
    """The forward pass of the published code; ``truth`` has segment-anything's layers with SAMUS's tables."""
    gray = 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]
    x = gray.repeat(1, 3, 1, 1)
    branch = conv(state, "cnn_embed.inc.conv.0", x)
    for index in range(3):
        branch = conv(state, f"cnn_embed.downs.{index}.maxpool_conv.1", F.max_pool2d(branch, 2))
    larger = F.interpolate(x, size=(SIDE + 8, SIDE + 8), mode="bilinear", align_corners=False)
    proj = truth.patch_embed.proj
    x = F.conv2d(larger, proj.weight, proj.bias, stride=8).permute(0, 2, 3, 1)
    x = x + bottleneck(state, "input_Adapter", x)
    table = F.max_pool2d(truth.pos_embed.permute(0, 3, 1, 2), 2)
    x = x + conv(state, "post_pos_embed.downs.0.maxpool_conv.1", table).permute(0, 2, 3, 1)
    x = truth.blocks[0](x)
    block = truth.blocks[1]
    n = block.norm1(x)
    n = n + cross_attention(state, "blocks.1.Space_Adapter", n, branch)
    branch = conv(state, "blocks.1.refine_Adapter.conv.0", branch)
    x = x + block.attn(n)
    m = block.norm2(x)
    x = x + block.mlp(m) + 0.5 * bottleneck(state, "blocks.1.MLP_Adapter", m)
    x = x + 0.5 * branch.permute(0, 2, 3, 1)
    return truth.neck(x.permute(0, 3, 1, 2))


def test_the_encoder_is_the_published_one():
    base = small_encoder(side=BASE)
    truth = reference(base, BASE)
    encoder = samus_encoder(base, SamusOptions(image_size=SIDE, cnn_widths=(4, 6, 8)))
    for number, module in enumerate(trained_parts(encoder)[0]):
        randomize(module, seed=number)
    state = encoder.state_dict()
    attention = truth.blocks[1].attn
    for name in ("rel_pos_h", "rel_pos_w"):
        table = state[f"blocks.1.attn.{name}"]
        assert table.shape == (2 * GRID - 1, DIM // HEADS)
        setattr(attention, name, torch.nn.Parameter(table))
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        found = encoder(images)
        torch.testing.assert_close(found, published(truth, state, images), rtol=1e-4, atol=1e-4)
    assert found.shape == (2, 16, GRID, GRID)


def test_tables_are_resized_along_their_length_only():
    table = torch.randn(127, 64)
    expected = F.interpolate(table.T[None], size=63, mode="linear", align_corners=False)[0].T
    torch.testing.assert_close(resized_table(table, 63), expected)
    assert resized_table(table, 127) is table


def test_sizes_and_names_of_the_published_network():
    with torch.device("meta"):
        sam = build_sam("vit_b")
        before = set(sam.state_dict())
        attach(sam, "samus")
    set_trainable(sam)
    state = sam.state_dict()
    assert sum(p.numel() for p in sam.parameters()) == 133_323_568
    assert sum(p.numel() for p in sam.parameters() if p.requires_grad) == 39_653_120
    assert len(state) == 393 and len(set(state) - before) == 79 and before <= set(state)
    assert sum(state[name].numel() for name in adapter_names(sam)) == 39_653_120
    for name in (
        "cnn_embed.inc.conv.1.weight", "cnn_embed.downs.2.maxpool_conv.2.bias",
        "post_pos_embed.downs.0.maxpool_conv.1.weight",
        "input_Adapter.D_fc1.weight", "blocks.5.MLP_Adapter.D_fc2.bias", "blocks.8.Space_Adapter.proj.weight",
        "blocks.11.refine_Adapter.conv.0.weight",
    ):  # fmt: skip
        assert f"image_encoder.{name}" in state
    assert state["image_encoder.blocks.2.attn.rel_pos_h"].shape == (63, 64)
    assert state["image_encoder.pos_embed"].shape == (1, 64, 64, 768)
    assert not [name for name in adapter_names(sam) if name.startswith(("mask_decoder", "prompt_encoder"))]


def test_the_network_around_it_follows_and_comes_back():
    torch.manual_seed(0)
    sam = build_sam("vit_tiny", 128).eval().requires_grad_(False)
    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        before = sam.encode(x)
        pixels = sam.preprocessing
        attach(sam, "samus", {"image_size": 64, "cnn_widths": [2, 4, 6]})
        assert (sam.image_size, sam.low_res_size, sam.preprocessing.square) == (64, 32, 64)
        assert (sam.preprocessing.mode, sam.preprocessing.std) == ("squash", (255.0, 255.0, 255.0))
        batch = sam.preprocessing.batch([torch.full((3, 64, 64), 51, dtype=torch.uint8)])
        torch.testing.assert_close(batch, torch.full((1, 3, 64, 64), 0.2))
        features = sam.encode(batch)
        point, label = torch.tensor([[3.0, 5.0]]), torch.tensor([1])
        prompts = Prompts.build([point], [label], [None], torch.zeros(1, dtype=torch.long))
        logits, _ = sam.decode(features, prompts, multimask=False)
        assert features.shape == (1, 256, 8, 8) and logits.shape == (1, 1, 32, 32)
        detach(sam)
        assert torch.equal(sam.encode(x), before)
    assert (sam.image_size, sam.low_res_size, sam.preprocessing) == (128, 32, pixels)


def test_tiny_vit_is_refused():
    with pytest.raises(ConfigError, match="SAMUS is made of SAM's ViT, but this network has the encoder TinyViT"):
        attach(build_sam("tiny_vit", 32), "samus")


@pytest.mark.parametrize("values", [{"image_size": 100}, {"cnn_widths": (1, 2)}, {"ratio": 9}])
def test_options_are_checked(values):
    (name,) = values
    with pytest.raises(ConfigError, match=f"option {name} is"):
        SamusOptions(**values)


def test_preprocessing_can_be_another():
    sam = build_sam("vit_tiny", 64)
    attach(sam, "samus", {"image_size": 64, "preprocessing": {"mode": "pad"}})
    assert sam.preprocessing.mode == "pad"
    detach(sam)
    with pytest.raises(ConfigError, match="preprocessing does not fit"):
        attach(sam, "samus", {"image_size": 64, "preprocessing": {"shape": 1}})
