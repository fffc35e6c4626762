"""Published weights: names and shapes rebuilt, positions interpolated, misfits refused with the counts."""

import numpy as np
import pytest
import torch
from mini_instances import TINY_VIT, tiny
from mmdet.registry import MODELS

from ultrasam.checkpoints import convert_to_released
from ultrasam.errors import CheckpointError
from ultrasam.modeling.build import build_sam
from ultrasam.models.backbones.deblurring_mim import DeblurringMimBackbone, rename_deblurring_mim
from ultrasam.models.backbones.dinov2 import Dinov2Backbone, rename_dinov2
from ultrasam.models.backbones.loading import resize_table
from ultrasam.models.backbones.usfm import UsfmBackbone, rename_usfm, resize_relative


def block_shapes(depth, dim, hidden=4):
    """Names and shapes of plain transformer blocks, as DINOv2, MAE and BEiT have in common."""
    shapes = {}
    for block in range(depth):
        prefix = f"blocks.{block}."
        for norm in ("norm1", "norm2"):
            shapes |= {f"{prefix}{norm}.weight": (dim,), f"{prefix}{norm}.bias": (dim,)}
        shapes |= {f"{prefix}attn.qkv.weight": (3 * dim, dim)}
        shapes |= {f"{prefix}attn.proj.weight": (dim, dim), f"{prefix}attn.proj.bias": (dim,)}
        shapes |= {f"{prefix}mlp.fc1.weight": (hidden * dim, dim), f"{prefix}mlp.fc1.bias": (hidden * dim,)}
        shapes |= {f"{prefix}mlp.fc2.weight": (dim, hidden * dim), f"{prefix}mlp.fc2.bias": (dim,)}
    return shapes


def dinov2_shapes(depth=12, dim=768, registers=0):
    shapes = {"cls_token": (1, 1, dim), "pos_embed": (1, 1370, dim), "mask_token": (1, dim)}
    if registers:
        shapes["register_tokens"] = (1, registers, dim)
    shapes |= {"patch_embed.proj.weight": (dim, 3, 14, 14), "patch_embed.proj.bias": (dim,)}
    shapes |= block_shapes(depth, dim)
    for block in range(depth):
        shapes[f"blocks.{block}.attn.qkv.bias"] = (3 * dim,)
        shapes |= {f"blocks.{block}.ls1.gamma": (dim,), f"blocks.{block}.ls2.gamma": (dim,)}
    return shapes | {"norm.weight": (dim,), "norm.bias": (dim,)}


def mae_shapes(depth=12, dim=768):
    shapes = {"cls_token": (1, 1, dim), "pos_embed": (1, 197, dim), "mask_token": (1, 1, 512)}
    shapes |= {"decoder_pos_embed": (1, 197, 512), "decoder_embed.weight": (512, dim), "decoder_norm.weight": (512,)}
    shapes |= {"decoder_blocks.0.norm1.weight": (512,), "decoder_pred.bias": (768,)}
    shapes |= {"patch_embed.proj.weight": (dim, 3, 16, 16), "patch_embed.proj.bias": (dim,)}
    shapes |= block_shapes(depth, dim) | {f"blocks.{block}.attn.qkv.bias": (3 * dim,) for block in range(depth)}
    return shapes | {"norm.weight": (dim,), "norm.bias": (dim,)}


def usfm_shapes(depth=12, dim=768, heads=12):
    shapes = {"cls_token": (1, 1, dim), "mask_token": (1, 1, dim)}
    shapes |= {"patch_embed.proj.weight": (dim, 3, 16, 16), "patch_embed.proj.bias": (dim,)}
    shapes |= block_shapes(depth, dim) | {"rel_pos_bias.relative_position_bias_table": (732, heads)}
    shapes |= {"rel_pos_bias.relative_position_index": (197, 197)}
    for block in range(depth):
        shapes |= {f"blocks.{block}.{name}": (dim,) for name in ("gamma_1", "gamma_2", "attn.q_bias", "attn.v_bias")}
    return shapes


def random_state(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def meta_state(shapes):
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def shapes_of(state):
    return {name: tuple(value.shape) for name, value in state.items()}


def test_dinov2_file_has_its_175_tensors():
    assert len(dinov2_shapes()) == 175


@pytest.mark.parametrize(
    ("build", "rename", "shapes"),
    [
        (Dinov2Backbone, lambda s: rename_dinov2(s, 74, 0, "x"), dinov2_shapes()),
        (lambda: Dinov2Backbone(registers=4), lambda s: rename_dinov2(s, 74, 4, "x"), dinov2_shapes(registers=4)),
        (DeblurringMimBackbone, lambda s: rename_deblurring_mim(s, 64, "x"), mae_shapes()),
    ],
    ids=["dinov2", "dinov2 with registers", "deblurring mim"],
)
def test_published_shapes_are_those_of_vit_b(build, rename, shapes):
    """At full size, without memory: after renaming, every name and shape of the model and no other."""
    with torch.device("meta"):
        backbone = build()
        renamed = rename(meta_state(shapes))
    assert shapes_of(renamed) == shapes_of(backbone.net.state_dict())


def test_published_shapes_of_usfm():
    with torch.device("meta"):
        backbone = UsfmBackbone(image_size=224)
        renamed, normed = rename_usfm(meta_state(usfm_shapes()), 14, 12, "x")
    missing = set(backbone.net.state_dict()) - set(renamed)
    assert not normed and missing == {"norm.weight", "norm.bias"}
    assert shapes_of(renamed).items() <= shapes_of(backbone.net.state_dict()).items()


def saved(path, content):
    torch.save(content, path)
    return str(path)


def test_dinov2_loads(tmp_path):
    state = random_state(dinov2_shapes(4, 48))
    at_home = tiny("Dinov2Backbone", image_size=518, weights=saved(tmp_path / "a.pth", state)).net.state_dict()
    assert all(torch.equal(at_home[name], state[name]) for name in at_home)
    teacher = {"teacher": {f"backbone.{name}": value for name, value in state.items()} | {"dino_head.w": torch.ones(1)}}
    small = tiny("Dinov2Backbone", weights=saved(tmp_path / "b.pth", teacher)).net.state_dict()
    assert torch.equal(small["blocks.3.ls2.gamma"], state["blocks.3.ls2.gamma"])
    assert torch.equal(small["pos_embed"][:, 0], state["pos_embed"][:, 0]) and small["pos_embed"].shape == (1, 17, 48)


def test_dinov2_registers_fold_the_class_position(tmp_path):
    state = random_state(dinov2_shapes(4, 48, registers=4))
    path = saved(tmp_path / "reg.pth", state)
    found = tiny("Dinov2Backbone", image_size=518, registers=4, weights=path).net.state_dict()
    assert torch.equal(found["cls_token"], state["cls_token"] + state["pos_embed"][:, :1])
    assert torch.equal(found["reg_token"], state["register_tokens"]) and found["pos_embed"].shape == (1, 1369, 48)
    with pytest.raises(CheckpointError, match="has 4 register tokens, the backbone 0; set registers=4"):
        tiny("Dinov2Backbone", weights=path)


def cubic(distance, a=-0.75):
    """Keys' kernel, as PyTorch's bicubic interpolation has it."""
    d = np.abs(distance)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def interpolated(values, count, scale):
    """Cubic convolution of a row of numbers, the borders repeated."""
    answer = np.zeros(count)
    for target in range(count):
        place = (target + 0.5) / scale - 0.5
        for source in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            answer[target] += cubic(place - source) * values[min(max(source, 0), len(values) - 1)]
    return answer


@pytest.mark.parametrize("official", [True, False])
def test_positions_are_interpolated_by_the_rule(official):
    """A table that is a product of a column and a row, so that each can be interpolated by itself."""
    rng = np.random.default_rng(0)
    column, row = rng.normal(size=37), rng.normal(size=37)
    cells = torch.from_numpy(np.outer(column, row)).float().reshape(1, 37 * 37, 1)
    table = torch.cat([torch.full((1, 1, 1), 5.0), cells], dim=1)
    found = resize_table(table, 74, 1, "x", official_scale=official)
    scale = (74.1 if official else 74.0) / 37
    expected = np.outer(interpolated(column, 74, scale), interpolated(row, 74, scale))
    assert found[0, 0, 0] == 5.0
    np.testing.assert_allclose(found[0, 1:, 0].reshape(74, 74).numpy(), expected, rtol=0, atol=2e-5)
    with pytest.raises(CheckpointError, match="expected"):
        resize_table(table[:, :-1], 74, 1, "x")


def test_relative_positions_keep_their_directions():
    """What depends on the distance down alone still does after interpolation, and rises with it."""
    down = torch.linspace(-1, 1, 27)[:, None].expand(27, 27).reshape(-1, 1)
    table = torch.cat([down, torch.tensor([[7.0], [8.0], [9.0]])]).expand(-1, 2).contiguous()
    assert torch.equal(resize_relative(table, 14, "x"), table)
    found = resize_relative(table, 20, "x")
    assert found.shape == (39 * 39 + 3, 2) and found[-3:, 0].tolist() == [7.0, 8.0, 9.0]
    grid = found[:-3, 0].reshape(39, 39)
    torch.testing.assert_close(grid, grid[:, :1].expand(39, 39), rtol=0, atol=1e-5)
    assert (grid[1:, 0] > grid[:-1, 0]).all() and grid[19, 0].abs() < 1e-5
    with pytest.raises(CheckpointError, match="an odd number squared"):
        resize_relative(table[:-1], 20, "x")


def test_usfm_loads(tmp_path):
    state = random_state(usfm_shapes(4, 48, 3))
    shared = "rel_pos_bias.relative_position_bias_table"
    backbone = tiny("UsfmBackbone", image_size=224, weights=saved(tmp_path / "a.pth", state))
    found = backbone.net.state_dict()
    for block in range(4):
        assert torch.equal(found[f"blocks.{block}.attn.relative_position_bias_table"], state[shared])
        assert torch.equal(found[f"blocks.{block}.gamma_1"], state[f"blocks.{block}.gamma_1"])
    assert found["norm.weight"].eq(1).all(), "the file has no last normalisation"
    norm = {"fc_norm.weight": torch.full((48,), 2.0), "fc_norm.bias": torch.zeros(48)}
    with_norm = tiny("UsfmBackbone", image_size=224, weights=saved(tmp_path / "b.pth", {"model": state | norm}))
    assert with_norm.net.norm.weight.eq(2).all()
    del state[shared]
    with pytest.raises(CheckpointError, match=r"holds no rel_pos_bias\.relative_position_bias_table"):
        tiny("UsfmBackbone", weights=saved(tmp_path / "c.pth", state))


def test_deblurring_mim_loads(tmp_path):
    state = random_state(mae_shapes(4, 48))
    content = {"model": state, "optimizer": {"lr": 0.1}, "epoch": 3}
    found = tiny("DeblurringMimBackbone", image_size=224, weights=saved(tmp_path / "a.pth", content)).net.state_dict()
    assert all(torch.equal(found[name], state[name]) for name in found)
    with pytest.raises(CheckpointError, match="ConvMAE"):
        content = {"model": {"patch_embed1.proj.weight": torch.ones(1)}}
        tiny("DeblurringMimBackbone", weights=saved(tmp_path / "b.pth", content))


def test_misfits_are_counted_and_change_nothing(tmp_path):
    state = random_state(mae_shapes(4, 48))
    del state["blocks.1.norm1.weight"], state["norm.bias"]
    state["blocks.2.attn.proj.weight"] = torch.zeros(4, 4)
    state["strange"] = torch.zeros(1)
    backbone = tiny("DeblurringMimBackbone")
    before = {name: value.clone() for name, value in backbone.net.state_dict().items()}
    from ultrasam.models.backbones.loading import fill

    renamed = rename_deblurring_mim(state, 4, tmp_path)
    counts = r"2 missing .*, 1 unexpected \(strange\), 1 of another shape .*file \(4, 4"
    with pytest.raises(CheckpointError, match=counts):
        fill(backbone.net, renamed, tmp_path / "file.pth")
    assert all(torch.equal(value, before[name]) for name, value in backbone.net.state_dict().items())
    with pytest.raises(CheckpointError, match="holds no pos_embed and cls_token"):
        tiny("Dinov2Backbone", weights=saved(tmp_path / "x.pth", {"weight": torch.ones(1)}))


def test_resnet_loads_torchvision(tmp_path):
    from torchvision.models.resnet import Bottleneck, ResNet

    torch.manual_seed(1)
    theirs = ResNet(Bottleneck, [1, 1, 1, 1])
    path = saved(tmp_path / "resnet.pth", theirs.state_dict())
    backbone = tiny("ResNetBackbone", weights=path).eval()
    square = torch.randn(1, 3, 64, 64)
    theirs.fc = torch.nn.Identity()
    torch.testing.assert_close(backbone.tokens(square).mean(dim=1), theirs.eval()(square))
    with pytest.raises(CheckpointError, match="missing"):
        tiny("ResNetBackbone", blocks=[2, 1, 1, 1], weights=path)


@pytest.mark.parametrize("form", ["plain", "released", "training"])
def test_sam_files_load_into_the_backbone(form, tmp_path):
    torch.manual_seed(2)
    sam = build_sam("vit_tiny", 64)
    state = sam.state_dict()
    content = {"plain": state, "released": {"state_dict": convert_to_released(state)}}.get(form) or {
        "format": "ultrasam-training-1", "state_dict": {f"sam.{name}": v for name, v in state.items()}, "card": {},
    }  # fmt: skip
    path = saved(tmp_path / f"{form}.pth", content)
    backbone = MODELS.build(dict(type="SamBackbone", arch="vit_tiny", image_size=64, weights=path))
    found = backbone.encoder.state_dict()
    assert all(torch.equal(value, state[f"image_encoder.{name}"]) for name, value in found.items())
    larger = MODELS.build(dict(type="SamBackbone", arch="vit_tiny", image_size=128, weights=path))
    assert larger.encoder.pos_embed.shape[1] == 8
    assert torch.equal(larger.encoder.blocks[0].attn.qkv.weight, backbone.encoder.blocks[0].attn.qkv.weight)
    with pytest.raises(CheckpointError, match="does not fit the backbone"):
        MODELS.build(dict(type="SamBackbone", arch="vit_tiny", image_size=64, sizes=dict(depth=5), weights=path))
    with pytest.raises(CheckpointError):
        MODELS.build(dict(type="SamBackbone", **{**TINY_VIT, "weights": path}))


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch executed",)


def test_files_run_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"pos_embed": Evil()}}, "evil.pth")
    for kind in ("UsfmBackbone", "ResNetBackbone", "SamBackbone"):
        with pytest.raises(CheckpointError):
            tiny(kind, weights="evil.pth")
    assert not (tmp_path / "executed").exists()
