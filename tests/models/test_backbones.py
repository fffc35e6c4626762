"""Backbones: one interface, frozen ones without a graph, caches, depths, and networks equal to independent ones."""

import copy
import sys

import pytest
import torch
from mini_instances import TINY, TINY_VIT, tiny
from mmdet.registry import MODELS
from torch import nn
from torch.nn import functional as F

from ultrasam.errors import ConfigError
from ultrasam.models.backbones.base import even_taps
from ultrasam.models.backbones.sam import drop_path

KINDS = [*TINY, "tiny_vit"]


def make(kind, **changes):
    torch.manual_seed(0)
    if kind == "tiny_vit":
        return MODELS.build({"type": "SamBackbone", **TINY_VIT, **changes})
    return tiny(kind, **{"frozen": False, **changes})


def images(backbone, count=2, seed=0):
    side = backbone.preprocessing.square
    generator = torch.Generator().manual_seed(seed)
    sizes = [(3, side - 8 * number, side) for number in range(count)]
    return [torch.randint(0, 256, size, generator=generator, dtype=torch.uint8) for size in sizes]


class Saved:
    """Counts the bytes that a forward pass keeps for the backward pass."""

    def __enter__(self):
        self.bytes = 0

        def pack(tensor):
            self.bytes += tensor.numel() * tensor.element_size()
            return tensor

        self.hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *exception):
        self.hooks.__exit__(*exception)


@pytest.mark.parametrize("kind", KINDS)
def test_interface(kind):
    backbone = make(kind)
    side = backbone.preprocessing.square
    square = backbone.prepare(images(backbone, 3))
    assert square.shape == (3, 3, side, side)
    maps, tokens = backbone(square), backbone.tokens(square)
    assert tuple(part.shape[1] for part in maps) == backbone.out_channels
    grids = [part.shape[-1] for part in maps]
    assert all(part.shape[-2] == part.shape[-1] for part in maps)
    for grid, stride in zip(grids, backbone.strides, strict=True):
        assert stride / 2 < side / grid < stride * 2
    assert tokens.shape == (3, grids[-1] ** 2, backbone.token_channels)
    (sum(part.square().mean() for part in maps) + tokens.square().mean()).backward()
    assert not [name for name, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert {backbone.layer_of(name) for name, _ in backbone.named_parameters()} == set(range(backbone.layers))


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_takes_part_in_maps_and_in_tokens(kind):
    """Otherwise distributed training would wait for gradients that never come."""
    for use in ("forward", "tokens"):
        backbone = make(kind)
        found = getattr(backbone, use)(backbone.prepare(images(backbone, 2)))
        sum(part.square().mean() for part in ([found] if use == "tokens" else found)).backward()
        assert not [name for name, p in backbone.named_parameters() if p.requires_grad and p.grad is None], use


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_keeps_no_graph(kind):
    frozen, trained = make(kind, frozen=True), make(kind)
    frozen.load_state_dict(trained.state_dict())
    before = copy.deepcopy(frozen.state_dict())
    frozen.train()
    assert not any(module.training for module in frozen.modules())
    square = frozen.prepare(images(frozen))
    with Saved() as none:
        found = [*frozen(square), frozen.tokens(square)]
    with Saved() as much:
        trained(square)
    assert none.bytes == 0 < 10 * square.numel() < much.bytes
    assert all(part.grad_fn is None and not part.requires_grad for part in found)
    assert not any(p.requires_grad for p in frozen.parameters())
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items()), "statistics moved"
    trained.load_state_dict(before)
    expected = trained.eval()(square)
    for part, other in zip(found, expected, strict=False):
        torch.testing.assert_close(part, other.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["ResNetBackbone", "UsfmBackbone", "tiny_vit"])
@pytest.mark.parametrize("use", ["maps", "tokens"])
def test_cache_changes_nothing(kind, use, tmp_path):
    backbone = make(kind, frozen=True, cache_dir=str(tmp_path))
    batch = images(backbone, 2)
    first = backbone.extract(batch, use)
    again = backbone.extract(batch[::-1], use)
    assert (backbone.caches[use].misses, backbone.caches[use].hits) == (2, 2)
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one, two.flip(0)) and one.dtype == torch.float32
    square = backbone.prepare(batch)
    plain = backbone(square) if use == "maps" else (backbone.tokens(square),)
    for one, two in zip(first, plain, strict=True):
        torch.testing.assert_close(one, two, rtol=2e-3, atol=2e-3)
    other = copy.deepcopy(backbone.state_dict())
    first_weight = next(name for name, value in other.items() if value.ndim > 1)
    other[first_weight] = torch.randn_like(other[first_weight])
    backbone.load_state_dict(other)
    changed = backbone.extract(batch, use)
    assert backbone.caches[use].hits == 0 and not torch.equal(changed[0], first[0])


def plain_attention(x, state, prefix, heads, bias=None):
    """Attention of a block by the formula, written out."""
    qkv_bias = state.get(f"{prefix}attn.qkv.bias")
    if qkv_bias is None:
        q_bias, v_bias = state[f"{prefix}attn.q_bias"], state[f"{prefix}attn.v_bias"]
        qkv_bias = torch.cat([q_bias, torch.zeros_like(q_bias), v_bias])
    batch, count, dim = x.shape
    q, k, v = (x @ state[f"{prefix}attn.qkv.weight"].T + qkv_bias).view(batch, count, 3, heads, -1).unbind(2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * (dim // heads) ** -0.5
    weights = (scores if bias is None else scores + bias).softmax(dim=-1)
    out = torch.einsum("bhqk,bkhd->bqhd", weights, v).reshape(batch, count, dim)
    return out @ state[f"{prefix}attn.proj.weight"].T + state[f"{prefix}attn.proj.bias"]


def plain_vit(images, state, heads, bias_of=None):
    """A plain transformer from its weights by their published names: normalised cells after every block."""
    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    kernel = state["patch_embed.proj.weight"]
    x = F.conv2d(images, kernel, state["patch_embed.proj.bias"], stride=kernel.shape[-1]).flatten(2).transpose(1, 2)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], dim=1)
    if "pos_embed" in state:
        x = x + state["pos_embed"]
    outputs, block = [], 0
    while f"blocks.{block}.norm1.weight" in state:
        prefix = f"blocks.{block}."
        first, second = (
            state.get(f"{prefix}ls{k}.gamma", state.get(f"{prefix}gamma_{k}", torch.ones(1))) for k in (1, 2)
        )
        bias = None if bias_of is None else bias_of(state[f"{prefix}attn.relative_position_bias_table"])
        x = x + first * plain_attention(norm(x, f"{prefix}norm1"), state, prefix, heads, bias)
        hidden = norm(x, f"{prefix}norm2") @ state[f"{prefix}mlp.fc1.weight"].T + state[f"{prefix}mlp.fc1.bias"]
        x = x + second * (F.gelu(hidden) @ state[f"{prefix}mlp.fc2.weight"].T + state[f"{prefix}mlp.fc2.bias"])
        outputs.append(norm(x, "norm")[:, 1:])
        block += 1
    return outputs


def brute_bias(grid):
    """Relative positions looked up pair by pair; the last three rows belong to the class token."""
    def of(table):
        cells = [(y, x) for y in range(grid) for x in range(grid)]
        bias = torch.empty(table.shape[1], 1 + len(cells), 1 + len(cells))
        bias[:, 0, :], bias[:, :, 0], bias[:, 0, 0] = table[-3][:, None], table[-2][:, None], table[-1]
        for q, (y, x) in enumerate(cells):
            for k, (v, u) in enumerate(cells):
                bias[:, q + 1, k + 1] = table[(y - v + grid - 1) * (2 * grid - 1) + x - u + grid - 1]
        return bias
    return of


@pytest.mark.parametrize("kind", ["Dinov2Backbone", "DeblurringMimBackbone", "UsfmBackbone"])
def test_transformers_equal_the_formula(kind):
    backbone = make(kind)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3)
    state = backbone.net.state_dict()
    bias_of = brute_bias(backbone.grid) if kind == "UsfmBackbone" else None
    square = backbone.prepare(images(backbone))
    with torch.no_grad():
        expected = plain_vit(square, state, 3, bias_of)
        found, tokens = backbone.eval()(square), backbone.tokens(square)
    for part, other in zip(found, expected, strict=True):
        torch.testing.assert_close(part.flatten(2).transpose(1, 2), other, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tokens, expected[-1], rtol=1e-4, atol=1e-4)


def test_sam_taps_are_those_of_the_encoder():
    backbone = make("SamBackbone", taps=(1, 3))
    square = backbone.prepare(images(backbone))
    last, kept = backbone.encoder.features(square, (1, 3))
    for part, other in zip(backbone(square), kept, strict=True):
        assert torch.equal(part, other.permute(0, 3, 1, 2))
    assert torch.equal(backbone.tokens(square), last.flatten(1, 2))
    assert backbone.out_channels == (48, 48) and not any(p.requires_grad for p in backbone.encoder.neck.parameters())


def test_resnet_equals_torchvision():
    backbone = make("ResNetBackbone").eval()
    square = backbone.prepare(images(backbone))
    torch.testing.assert_close(backbone.tokens(square).mean(dim=1), backbone.net(square))
    assert not any(module.training for module in backbone.train().norms())
    assert all(module.training for module in make("ResNetBackbone", train_norm=True).norms())


def test_taps_of_the_paper():
    assert even_taps(12) == (2, 5, 8, 11) and even_taps(24) == (5, 11, 17, 23) and even_taps(4) == (0, 1, 2, 3)


def test_drop_path_keeps_the_mean_and_drops_whole_samples():
    torch.manual_seed(0)
    found = drop_path(torch.ones(20000, 2, 2), 0.25, True)
    assert found.unique().tolist() == [0.0, pytest.approx(1 / 0.75)]
    assert (found == found[:, :1, :1]).all() and found.mean() == pytest.approx(1.0, abs=0.02)
    assert drop_path(torch.ones(2, 1), 0.25, False).eq(1).all()


@pytest.mark.parametrize("kind", ["SamBackbone", "Dinov2Backbone", "UsfmBackbone", "DeblurringMimBackbone"])
def test_drop_path_acts_in_training_only(kind):
    plain, dropping = make(kind), make(kind, drop_path_rate=0.9)
    dropping.load_state_dict(plain.state_dict())
    square = plain.prepare(images(plain, 4))
    with torch.no_grad():
        assert torch.equal(plain.tokens(square), plain.train().tokens(square))
        assert torch.equal(plain.tokens(square), dropping.eval().tokens(square))
        assert not torch.allclose(plain.tokens(square), dropping.train().tokens(square))
        # The first block's rate is 0.
        assert torch.allclose(plain(square)[0], dropping(square)[0])


def test_usfm_blocks_share_one_index():
    backbone = make("UsfmBackbone").to(torch.float64)
    pointers = {block.attn.relative_position_index.data_ptr() for block in backbone.net.blocks}
    assert len(pointers) == 1
    assert not [name for name in backbone.state_dict() if "index" in name]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: make("Dinov2Backbone", image_size=64), "multiple of 14, got 64; use 56 or 70"),
        (lambda: make("SamBackbone", taps=(3, 1)), "ascending order"),
        (lambda: make("UsfmBackbone", taps=(0, 4)), "blocks 0 to 3"),
        (lambda: make("SamBackbone", arch="vit_x"), "unknown architecture 'vit_x'"),
        (lambda: make("SamBackbone", sizes=dict(width=3)), "SamBackbone vit_tiny cannot be built"),
        (lambda: make("ResNetBackbone", depth=18), "one of"),
        (lambda: make("ResNetBackbone", preprocessing=dict(mena=1)), "preprocessing cannot be used"),
        (lambda: make("ResNetBackbone", preprocessing=dict(square=32)), "give image_size only"),
        (lambda: make("SamBackbone", cache_dir="x"), "set frozen=True"),
        (lambda: make("tiny_vit", drop_path_rate=0.1), "no drop path"),
        (lambda: make("SamBackbone")(torch.zeros(1, 3, 32, 32)), r"takes images of \(B, 3, 64, 64\)"),
        (lambda: make("SamBackbone").extract([], "cells"), "maps, tokens"),
    ],
)
def test_errors_say_what_fits(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def test_absent_timm_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"needs the package timm; run pip install 'ultrasam\[backbones\]'"):
        make("UsfmBackbone")


class Two(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.backbone = make(kind)
        self.head = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
        self.query_embed = nn.Embedding(2, 4)


def by_parameter(model, wrapper):
    names = {id(p): name for name, p in model.named_parameters()}
    groups = wrapper.optimizer.param_groups
    return {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


@pytest.mark.parametrize("kind", ["ResNetBackbone", "DeblurringMimBackbone"])
def test_groups_are_those_of_mmengine(kind):
    """MMDetection's configuration of Mask2Former through MMEngine's constructor, and ours."""
    from mmengine.optim import build_optim_wrapper

    model = Two(kind)
    base = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05))
    keys = {"backbone": dict(lr_mult=0.1, decay_mult=1.0), "query_embed": dict(lr_mult=1.0, decay_mult=0.0)}
    theirs = build_optim_wrapper(model, {**base, "paramwise_cfg": dict(custom_keys=keys, norm_decay_mult=0.0)})
    options = dict(backbone_lr_mult=0.1, no_decay_1d=False, no_decay_names=["query_embed"])
    ours = build_optim_wrapper(model, {**base, "constructor": "LayerDecayConstructor", "paramwise_cfg": options})
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    expected = {name: value for name, value in by_parameter(model, theirs).items() if name in trained}
    # MMEngine lets a custom key win over the rule for normalisations; ours never decays these.
    norms = {f"{path}.{part}" for path, module in model.named_modules() for part in ("weight", "bias")
             if isinstance(module, nn.LayerNorm | nn.BatchNorm2d)}  # fmt: skip
    found = by_parameter(model, ours)
    assert set(found) == trained
    assert {n: v for n, v in found.items() if n not in norms} == {n: v for n, v in expected.items() if n not in norms}
    assert all(found[name][1] == 0.0 for name in norms & trained)


def test_rates_shrink_with_depth():
    from mmengine.optim import build_optim_wrapper

    model = Two("UsfmBackbone")
    cfg = dict(
        type="OptimWrapper", optimizer=dict(type="AdamW", lr=1.0, weight_decay=0.05),
        constructor="LayerDecayConstructor", paramwise_cfg=dict(layer_decay=0.5),
    )  # fmt: skip
    found = by_parameter(model, build_optim_wrapper(model, cfg))
    # Six depths: patches 0, blocks 1 to 4, the last normalisation 5.
    assert found["backbone.net.patch_embed.proj.weight"] == (0.5**6, 0.05)
    assert found["backbone.net.blocks.3.mlp.fc1.weight"] == (0.5**2, 0.05)
    assert found["backbone.net.norm.weight"] == (0.5, 0.0)
    assert found["backbone.net.blocks.0.attn.relative_position_bias_table"] == (0.5**5, 0.0)
    assert found["head.0.weight"] == (1.0, 0.05) and found["head.0.bias"] == (1.0, 0.0)
    for wrong in (dict(decay=0.5), dict(layer_decay=0.0), dict(no_decay_names="abc")):
        with pytest.raises(ConfigError, match="paramwise_cfg of LayerDecayConstructor"):
            build_optim_wrapper(model, {**cfg, "paramwise_cfg": wrong})
    with pytest.raises(ConfigError, match="nothing of the model trains"):
        build_optim_wrapper(model.requires_grad_(False), cfg)
