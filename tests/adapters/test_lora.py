"""LoRA: nothing changes at the start, then exactly the low-rank product is added; names stay SAM's."""

import copy

import pytest
import torch
from small_encoders import DIM, images, reference, small_encoder

from ultrasam.adapters.attach import adapter_names, attach, attached, detach, merge, set_trainable
from ultrasam.adapters.lora import add_lora, lora_layers
from ultrasam.adapters.options import LoraOptions
from ultrasam.errors import ConfigError
from ultrasam.modeling.build import build_sam


def network(arch, side, seed=0):
    """A frozen network without zeros in its tables."""
    torch.manual_seed(seed)
    sam = build_sam(arch, side).eval().requires_grad_(False)
    for name, parameter in sam.named_parameters():
        if "rel_pos" in name or "attention_biases" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return sam


def encode(sam, side):
    with torch.no_grad():
        return sam.encode(torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1)))


def draw(sam, seed=0):
    """Give the adapter random values, as after training."""
    torch.manual_seed(seed)
    set_trainable(sam)
    for parameter in sam.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    sam.requires_grad_(False)


# At 160 windows are padded, at 128 they are not; TinyViT pads everywhere.
CASES = [("vit_tiny", 160, "qkv"), ("vit_tiny", 128, "qv"), ("tiny_vit", 32, "qkv"), ("tiny_vit", 32, "qv")]


@pytest.mark.parametrize(("arch", "side", "targets"), CASES)
def test_a_new_adapter_changes_no_bit_and_a_trained_one_folds_into_the_weights(arch, side, targets):
    sam = network(arch, side)
    before, plain = encode(sam, side), {name: value.clone() for name, value in sam.state_dict().items()}
    attach(sam, "lora", {"targets": targets, "rank": 4, "alpha": 8.0})
    if targets == "qkv":
        assert torch.equal(encode(sam, side), before)
    else:
        # One product became three, which may sum in another order.
        torch.testing.assert_close(encode(sam, side), before, rtol=0, atol=2e-6)
    assert set(sam.state_dict()) - set(adapter_names(sam)) == set(plain)
    assert all(torch.equal(sam.state_dict()[name], value) for name, value in plain.items())
    draw(sam)
    adapted = encode(sam, side)
    assert (adapted - before).abs().max() > 0.01
    twin = copy.deepcopy(sam)
    detach(twin)
    assert torch.equal(encode(twin, side), before) and attached(twin) is None
    merge(sam)
    assert set(sam.state_dict()) == set(plain) and attached(sam) is None
    torch.testing.assert_close(encode(sam, side), adapted, rtol=1e-4, atol=1e-4)


def test_the_product_is_that_of_the_formula():
    """segment-anything's encoder with ``W + alpha / rank * B A`` in place of ``W`` gives the same."""
    encoder = small_encoder()
    truth = reference(encoder)
    add_lora(encoder, LoraOptions(rank=2, alpha=6.0))
    state = encoder.state_dict()
    generator = torch.Generator().manual_seed(3)
    for name in [name for name in state if "lora" in name]:
        state[name] = torch.randn(state[name].shape, generator=generator)
    encoder.load_state_dict(state)
    for index, block in enumerate(truth.blocks):
        low, high = (state[f"blocks.{index}.attn.qkv.lora_{part}.weight"] for part in "AB")
        assert low.shape == (2, DIM) and high.shape == (3 * DIM, 2)
        block.attn.qkv.weight += 3.0 * high @ low
    with torch.no_grad():
        torch.testing.assert_close(encoder(images()), truth(images()), rtol=1e-4, atol=1e-4)


def test_queries_and_values_alone():
    """Each of the two has a product of its own; the rows of the keys stay."""
    encoder = small_encoder()
    truth = reference(encoder)
    add_lora(encoder, LoraOptions(rank=2, alpha=2.0, targets="qv"))
    state = encoder.state_dict()
    names = [name for name in state if "lora" in name]
    assert {name.split("qkv.")[1] for name in names} == {f"{p}.lora_{m}.weight" for p in "qv" for m in "AB"}
    generator = torch.Generator().manual_seed(3)
    for name in names:
        state[name] = torch.randn(state[name].shape, generator=generator)
    encoder.load_state_dict(state)
    for index, block in enumerate(truth.blocks):
        prefix = f"blocks.{index}.attn.qkv"
        for part, rows in (("q", slice(0, DIM)), ("v", slice(2 * DIM, None))):
            low, high = (state[f"{prefix}.{part}.lora_{matrix}.weight"] for matrix in "AB")
            block.attn.qkv.weight[rows] += high @ low
    with torch.no_grad():
        torch.testing.assert_close(encoder(images()), truth(images()), rtol=1e-4, atol=1e-4)


def test_heads_of_tiny_vit_lie_together():
    """Of the fused rows of a head (queries, keys, values), the keys' stay."""
    sam = network("tiny_vit", 32)
    attach(sam, "lora", {"targets": "qv", "rank": 1})
    draw(sam)
    plain = {name: value.clone() for name, value in sam.state_dict().items() if name.endswith("attn.qkv.weight")}
    merge(sam)
    for name, before in plain.items():
        attention = sam.get_submodule(name.removesuffix(".qkv.weight"))
        changed = (sam.state_dict()[name] != before).any(dim=1).unflatten(0, (attention.heads, 3, -1))
        assert changed[:, 0].all() and changed[:, 2].all() and not changed[:, 1].any()


def test_numbers_that_train():
    for targets, rank, expected in (("qkv", 16, 589_824), ("qv", 4, 147_456)):
        with torch.device("meta"):
            sam = build_sam("vit_b")
            attach(sam, "lora", {"targets": targets, "rank": rank})
        set_trainable(sam)
        assert sum(p.numel() for p in sam.parameters() if p.requires_grad) == expected
        assert sum(sam.state_dict()[name].numel() for name in adapter_names(sam)) == expected


def test_dropout_is_of_the_adapter_and_of_training():
    encoder = small_encoder()
    add_lora(encoder, LoraOptions(rank=2, dropout=0.5))
    for layer in lora_layers(encoder):
        torch.nn.init.normal_(layer.lora_B["default"].weight)
    with torch.no_grad():
        assert torch.equal(encoder(images()), encoder(images()))
        encoder.train()
        assert not torch.equal(encoder(images()), encoder(images()))


def test_plain_weights_load_below_an_adapter():
    sam, other = network("vit_tiny", 64), network("vit_tiny", 64, seed=1)
    attach(sam, "lora", {"rank": 2})
    missing = sam.load_state_dict(other.state_dict(), strict=False)
    assert not missing.unexpected_keys and len(missing.missing_keys) == len(adapter_names(sam))
    assert torch.equal(encode(sam, 64), encode(other, 64))


@pytest.mark.parametrize("method", ["med_sa", None])
def test_only_lora_folds(method):
    sam = network("vit_tiny", 64)
    if method:
        attach(sam, method)
    with pytest.raises(ConfigError, match="only LoRA can be folded"):
        merge(sam)


def test_one_adapter_at_a_time():
    sam = network("vit_tiny", 64)
    attach(sam, "lora")
    with pytest.raises(ConfigError, match=r"has an adapter already \(lora\)"):
        attach(sam, "med_sa")


@pytest.mark.parametrize(("values", "message"), [
    ({"rank": 0}, "rank is 0"), ({"dropout": 1.0}, "dropout is 1.0"), ({"targets": "k"}, "targets is 'k'"),
    ({"alpah": 3}, "has no option 'alpah'; it has rank, alpha"), ({"also_train": ["image_encoder"]}, "also_train"),
    ({"also_train": "mask_decoder"}, "also_train"), ({"rank": "many"}, "wrong type"),
])  # fmt: skip
def test_options_are_checked(values, message):
    with pytest.raises(ConfigError, match=message):
        attach(network("vit_tiny", 64), "lora", values)


def test_without_peft(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ConfigError, match=r"LoRA needs the package peft; run pip install 'ultrasam\[peft\]'"):
        add_lora(small_encoder(), LoraOptions())
