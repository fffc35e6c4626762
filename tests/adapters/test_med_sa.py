"""Med-SA against the published block, rebuilt by hand around segment-anything's layers."""

import pytest
import torch
from segment_anything.modeling.image_encoder import window_partition, window_unpartition
from small_encoders import WINDOW, images, randomize, reference, small_encoder
from torch.nn import functional as F

from ultrasam.adapters.attach import adapter_names, attach, detach, set_trainable
from ultrasam.adapters.med_sa import adapter_modules, add_med_sa
from ultrasam.adapters.options import MedSaOptions
from ultrasam.errors import ConfigError
from ultrasam.modeling.build import build_sam


def adapter(state, prefix, x):
    x = F.gelu(F.linear(x, state[f"{prefix}.down.weight"], state[f"{prefix}.down.bias"]))
    return F.linear(x, state[f"{prefix}.up.weight"], state[f"{prefix}.up.bias"])


def published_block(block, state, prefix, x, raw):
    """The block of the Medical SAM Adapter: space adapter with skip before windows are joined, MLP adapter beside."""
    shortcut, size = x, x.shape[1:3]
    if raw and block.window_size:
        x, padded = window_partition(x, block.window_size)
        x = block.norm1(x)
    else:
        x = block.norm1(x)
        if block.window_size:
            x, padded = window_partition(x, block.window_size)
    x = block.attn(x)
    x = x + adapter(state, f"{prefix}.space_adapter", x)
    if block.window_size:
        x = window_unpartition(x, block.window_size, padded, size)
    x = shortcut + x
    normed = block.norm2(x)
    return x + block.mlp(normed) + 0.5 * adapter(state, f"{prefix}.mlp_adapter", normed)


@pytest.mark.parametrize("padding", ["normalised", "raw"])
def test_the_block_is_the_published_one(padding):
    encoder = small_encoder()
    truth = reference(encoder)
    add_med_sa(encoder, MedSaOptions(padding=padding))
    for number, module in enumerate(adapter_modules(encoder)):
        randomize(module, seed=number)
    state = encoder.state_dict()
    with torch.no_grad():
        x = truth.patch_embed(images()) + truth.pos_embed
        for index, block in enumerate(truth.blocks):
            x = published_block(block, state, f"blocks.{index}", x, padding == "raw")
        expected = truth.neck(x.permute(0, 3, 1, 2))
        found = encoder(images())
    assert WINDOW and found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_two_paddings_differ():
    found = []
    for padding in ("normalised", "raw"):
        encoder = small_encoder()
        add_med_sa(encoder, MedSaOptions(padding=padding))
        with torch.no_grad():
            found.append(encoder(images()))
    assert (found[0] - found[1]).abs().max() > 1e-3


@pytest.mark.parametrize(("arch", "side"), [("vit_tiny", 160), ("vit_tiny", 128), ("tiny_vit", 32)])
def test_a_new_adapter_changes_no_bit(arch, side):
    torch.manual_seed(0)
    sam = build_sam(arch, side).eval().requires_grad_(False)
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        before = sam.encode(x)
        attach(sam, "med_sa")
        assert torch.equal(sam.encode(x), before)
        for module in adapter_modules(sam.image_encoder):
            torch.nn.init.normal_(module.up.weight, std=0.1)
        assert not torch.equal(sam.encode(x), before)
        detach(sam)
        assert torch.equal(sam.encode(x), before)


def test_default_initialisation_is_no_identity():
    encoder = small_encoder()
    with torch.no_grad():
        before = encoder(images())
        add_med_sa(encoder, MedSaOptions(init="default"))
        assert not torch.equal(encoder(images()), before)


def test_tiny_vit_by_hand():
    """TinyViT's block: the same two adapters around its attention and its MLP."""
    torch.manual_seed(0)
    sam = build_sam("tiny_vit", 32).eval().requires_grad_(False)
    attach(sam, "med_sa", {"scale": 0.25})
    block = sam.image_encoder.layers[1].blocks[0]
    for name in ("space_adapter", "mlp_adapter"):
        randomize(getattr(block, name), seed=len(name))
    cells = torch.randn(1, 8, 8, 128)
    state = {f"b.{name}": value for name, value in block.state_dict().items()}
    with torch.no_grad():
        a = block.attn(cells)
        x = cells + a + adapter(state, "b.space_adapter", a)
        x = block.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        normed = block.mlp.norm(x)
        expected = x + block.mlp(x) + 0.25 * adapter(state, "b.mlp_adapter", normed)
        found = block(cells.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_numbers_that_train():
    with torch.device("meta"):
        sam = build_sam("vit_b")
        attach(sam, "med_sa")
    set_trainable(sam)
    # Two adapters in each of 12 blocks, 768 -> 192 -> 768 with biases: 295,872 each.
    assert sum(p.numel() for p in sam.parameters() if p.requires_grad) == 24 * 295_872
    assert len(adapter_names(sam)) == 24 * 4


@pytest.mark.parametrize("values", [{"ratio": 0}, {"init": "ones"}, {"padding": "none"}])
def test_options_are_checked(values):
    (name,) = values
    with pytest.raises(ConfigError, match=f"option {name} is"):
        MedSaOptions(**values)
