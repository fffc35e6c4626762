"""Adapter files: small, only on their own base, whole or not at all, several on one base."""

import json

import pytest
import torch
from safetensors import safe_open

from ultrasam.adapters.attach import adapter_names, attach, attached, set_trainable
from ultrasam.adapters.bank import AdapterBank
from ultrasam.adapters.files import (
    adapter_card,
    apply_adapter,
    base_hash,
    load_into,
    merge_adapter,
    prepare_adapted,
    read_adapter,
    save_adapter,
    tensor_digests,
)
from ultrasam.checkpoints import read_weights, safe_load, save_checkpoint
from ultrasam.checkpoints.cards import is_adapted, is_adapter
from ultrasam.errors import CheckpointError, ConfigError
from ultrasam.modeling.build import build_sam

SIDE = 64
SAMUS = {"image_size": 64, "cnn_widths": [2, 4, 6]}
METHODS = {
    "lora": {"rank": 2},
    "med_sa": {"ratio": 0.1},
    "samus": SAMUS,
    "lora_and_decoder": {"rank": 2, "also_train": ["mask_decoder"]},
}


def base(seed=0):
    torch.manual_seed(seed)
    return build_sam("vit_tiny", SIDE).eval().requires_grad_(False)


def encode(sam):
    with torch.no_grad():
        return sam.encode(torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)))


def trained(name, seed=5):
    """A network with an adapter of random values."""
    sam = base()
    attach(sam, name.split("_and")[0], METHODS[name])
    torch.manual_seed(seed)
    set_trainable(sam)
    for parameter in sam.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    return sam.requires_grad_(False)


def written(folder, name, seed=5):
    sam = trained(name, seed)
    path = folder / f"{name}_{seed}.safetensors"
    save_adapter(path, sam, {"adapter": adapter_card(sam, "the small one"), "passes": ["single"]})
    return path, sam


@pytest.mark.parametrize("name", METHODS)
def test_a_file_gives_the_network_back(tmp_path, name):
    path, sam = written(tmp_path, name)
    with safe_open(path, "pt") as file:
        assert sorted(file.keys()) == sorted(adapter_names(sam))
        card = json.loads(file.metadata()["card"])
    assert is_adapter(card) and not is_adapted(card) and card["adapter"]["base"]["name"] == "the small one"
    fresh = base()
    assert apply_adapter(fresh, path)["passes"] == ["single"]
    assert torch.equal(encode(fresh), encode(sam)) and fresh.preprocessing == sam.preprocessing
    assert all(torch.equal(value, fresh.state_dict()[key]) for key, value in sam.state_dict().items())
    assert path.stat().st_size < sum(4 * sam.state_dict()[key].numel() for key in adapter_names(sam)) + 20_000


@pytest.mark.parametrize("name", ["lora", "samus"])
def test_another_base_is_refused_by_name_and_hash(tmp_path, name):
    path, _ = written(tmp_path, name)
    other = base()
    with torch.no_grad():
        other.mask_decoder.iou_token.weight[0, 0] += 1e-3
    before = encode(other)
    wanted = read_adapter(path).base["sha256"]
    found = base_hash(tensor_digests(other.state_dict()), "single", read_adapter(path).tensors)
    with pytest.raises(CheckpointError, match=f"'the small one'.*{wanted}.*'mine.pth' has the.*{found}"):
        apply_adapter(other, path, "mine.pth")
    assert attached(other) is None and torch.equal(encode(other), before)


def test_the_form_of_the_decoder_belongs_to_the_base(tmp_path):
    path, _ = written(tmp_path, "lora")
    other = base()
    other.set_mlp_residual("double")
    with pytest.raises(CheckpointError, match="load the base that it was trained on"):
        apply_adapter(other, path)


def test_another_architecture_is_refused(tmp_path):
    path, _ = written(tmp_path, "lora")
    with pytest.raises(CheckpointError, match="of the architecture 'vit_tiny', but 'lite' is 'tiny_vit'"):
        apply_adapter(build_sam("tiny_vit", 32), path, "lite")


def test_what_the_adapter_brings_is_not_part_of_its_base(tmp_path):
    """An adapter that was trained with the decoder brings its own, whatever decoder the base has."""
    path, sam = written(tmp_path, "lora_and_decoder")
    other = base()
    with torch.no_grad():
        other.mask_decoder.iou_token.weight += 1
    kept = other.mask_decoder.iou_token.weight.clone()
    bank = AdapterBank(other, adapters={"a": path})
    bank.use("a")
    assert torch.equal(other.mask_decoder.iou_token.weight, sam.mask_decoder.iou_token.weight)
    bank.use(None)
    assert torch.equal(other.mask_decoder.iou_token.weight, kept)


def test_several_adapters_on_one_base(tmp_path):
    sam = base()
    plain, outcomes = encode(sam), {}
    pixels = sam.preprocessing
    bank = AdapterBank(sam)
    for name in METHODS:
        path, network = written(tmp_path, name)
        bank.add(name, path)
        outcomes[name] = encode(network)
    for name in (*METHODS, None, *reversed(METHODS), None):
        bank.use(name)
        assert bank.active == name and torch.equal(encode(sam), plain if name is None else outcomes[name])
    assert sam.preprocessing == pixels and attached(sam) is None and bank.names == list(METHODS)
    with pytest.raises(ConfigError, match="no adapter 'liver'; there are lora"):
        bank.use("liver")
    with pytest.raises(CheckpointError, match="load the base"):
        AdapterBank(base(seed=1), adapters={"lora": tmp_path / "lora_5.safetensors"})
    bank.use("lora")
    with pytest.raises(ConfigError, match="a bank needs a plain network"):
        AdapterBank(sam)


def test_folded_weights_are_plain_weights(tmp_path):
    path, sam = written(tmp_path, "lora")
    save_checkpoint(tmp_path / "base.safetensors", base().state_dict(), {"architecture": "vit_tiny", "name": "b"})
    merge_adapter(tmp_path / "base.safetensors", path, tmp_path / "out.safetensors")
    found = read_weights(tmp_path / "out.safetensors")
    assert set(found.state) == set(base().state_dict()) and not found.card.get("adapter")
    assert found.card["merged"]["base"]["name"] == "the small one" and found.card["passes"] == ["single"]
    plain = base(seed=3)
    plain.load_state_dict(found.state)
    torch.testing.assert_close(encode(plain), encode(sam), rtol=1e-4, atol=1e-4)
    medical, _ = written(tmp_path, "med_sa")
    with pytest.raises(CheckpointError, match="only LoRA can be folded"):
        merge_adapter(tmp_path / "base.safetensors", medical, tmp_path / "no.safetensors")
    assert not (tmp_path / "no.safetensors").exists()


@pytest.mark.parametrize("name", METHODS)
def test_the_base_loads_below_an_adapter(tmp_path, name):
    """Parameters stay the same objects, because an optimizer may hold them."""
    save_checkpoint(tmp_path / "b.safetensors", base(seed=4).state_dict(), {"architecture": "vit_tiny"})
    sam = trained(name)
    before = list(sam.parameters())
    assert "below a" in load_into(sam, tmp_path / "b.safetensors")
    assert all(a is b for a, b in zip(before, sam.parameters(), strict=True))
    own = base(seed=4).state_dict()
    brought = set(adapter_names(sam))
    assert all(torch.equal(sam.state_dict()[key], value) for key, value in own.items() if key not in brought)
    if name == "samus":
        assert sam.state_dict()["image_encoder.blocks.1.attn.rel_pos_h"].shape[0] == 2 * SIDE // 8 - 1


def test_an_adapter_file_loads_into_its_configuration(tmp_path):
    path, sam = written(tmp_path, "lora", seed=7)
    other = trained("lora")
    assert not torch.equal(encode(other), encode(sam))
    load_into(other, path)
    assert torch.equal(encode(other), encode(sam))
    with pytest.raises(CheckpointError, match="another adapter than the configuration's"):
        load_into(trained("med_sa"), path)


def test_weights_that_do_not_fit_are_named(tmp_path):
    state = base().state_dict()
    removed = state.pop("prompt_encoder.no_mask_embed.weight")
    save_checkpoint(tmp_path / "b.safetensors", state, {"architecture": "vit_tiny"})
    with pytest.raises(CheckpointError, match=r"prompt_encoder\.no_mask_embed\.weight is missing"):
        load_into(trained("lora"), tmp_path / "b.safetensors")
    assert removed is not None


@pytest.mark.parametrize("name", METHODS)
def test_a_whole_checkpoint_says_how_to_build_its_network(tmp_path, name):
    sam = trained(name)
    card = {
        "architecture": "vit_tiny", "adapter": adapter_card(sam, "b"), "preprocessing": sam.preprocessing.to_dict(),
    }  # fmt: skip
    save_checkpoint(tmp_path / "w.safetensors", sam.state_dict(), card)
    content = safe_load(tmp_path / "w.safetensors")
    assert is_adapted(content["card"])
    fresh = base(seed=8)
    prepare_adapted(fresh, content["card"])
    fresh.load_state_dict(content["state_dict"])
    assert torch.equal(encode(fresh.requires_grad_(False)), encode(sam))


def damaged(card, change):
    card = json.loads(json.dumps(card))
    change(card)
    return card


@pytest.mark.parametrize(("change", "message"), [
    (lambda c: c.pop("kind"), "is no adapter file"), (lambda c: c["adapter"].pop("base"), "its card names no base"),
    (lambda c: c["adapter"].update(method="prefix"), "does not fit: there is no adapter 'prefix'"),
    (lambda c: c["adapter"]["options"].update(rank=3), "is damaged"),
    (lambda c: c["preprocessing"].update(mode="stretch"), "is damaged"),
    (lambda c: c.pop("preprocessing"), "is damaged"),
    (lambda c: c.update(adapter="lora"), "its card names no base"),
])  # fmt: skip
def test_damaged_files_change_nothing(tmp_path, change, message):
    path, _ = written(tmp_path, "lora")
    content = safe_load(path)
    save_checkpoint(tmp_path / "bad.safetensors", content["state_dict"], damaged(content["card"], change))
    sam = base()
    before = encode(sam)
    with pytest.raises(CheckpointError, match=message):
        apply_adapter(sam, tmp_path / "bad.safetensors")
    assert attached(sam) is None and torch.equal(encode(sam), before)


def test_a_card_without_a_base_is_not_written(tmp_path):
    with pytest.raises(CheckpointError, match="its card names no base"):
        save_adapter(tmp_path / "a.safetensors", trained("lora"), {"adapter": {}})
    with pytest.raises(CheckpointError, match="no adapter to describe"):
        adapter_card(base(), "b")
    assert not list(tmp_path.iterdir())
