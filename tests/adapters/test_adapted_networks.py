"""Adapted models in prediction: an adapter's file on its base, a training's whole checkpoint, and the wrong base."""

import numpy as np
import pytest
import torch
from test_adapter_files import METHODS, SIDE, base, encode, trained

from ultrasam.adapters.attach import attached
from ultrasam.adapters.files import adapter_card, save_adapter
from ultrasam.checkpoints import load_network, save_checkpoint
from ultrasam.cli.predict import main as predict
from ultrasam.downstream.checkpoint import recognise
from ultrasam.errors import CheckpointError
from ultrasam.inference import UltraSam
from ultrasam.io.images import write_png


def write_base(folder, seed=0):
    sam = base(seed)
    card = {"architecture": "vit_tiny", "mlp_residual": "single", "preprocessing": sam.preprocessing.to_dict()}
    path = folder / f"base{seed}.safetensors"
    save_checkpoint(path, sam.state_dict(), {**card, "passes": ["single", "multi"]})
    return path


def card_of(sam, base_path):
    return {
        "architecture": "vit_tiny", "mlp_residual": "single", "preprocessing": sam.preprocessing.to_dict(),
        "passes": ["single"], "adapter": adapter_card(sam, str(base_path)),
    }  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_an_adapter_file_predicts_on_the_base_that_it_names(tmp_path, name):
    path = write_base(tmp_path)
    sam = trained(name)
    save_adapter(tmp_path / "adapter.safetensors", sam, card_of(sam, path))
    network = load_network(tmp_path / "adapter.safetensors")
    assert torch.allclose(encode(network.sam), encode(sam), atol=2e-5)
    assert network.passes == ("single",)
    if name.startswith("lora"):
        assert attached(network.sam) is None, "folded into the weights"
    image = np.random.default_rng(0).integers(0, 255, (50, 60, 3), dtype=np.uint8)
    assert UltraSam(network).session(image).predict(points=[[20, 20]], labels=[1]).masks.shape == (1, 50, 60)


def test_the_base_can_be_named_before_the_adapter(tmp_path):
    path = write_base(tmp_path)
    sam = trained("lora")
    save_adapter(tmp_path / "adapter.safetensors", sam, card_of(sam, "gone.pth"))
    with pytest.raises(CheckpointError, match=r"adapter of 'gone\.pth'.*'BASE\.pth\+adapter\.safetensors'"):
        load_network(tmp_path / "adapter.safetensors")
    network = load_network(f"{path}+{tmp_path / 'adapter.safetensors'}")
    assert torch.allclose(encode(network.sam), encode(sam), atol=2e-5)
    with pytest.raises(CheckpointError, match="belongs to"):
        load_network(f"{write_base(tmp_path, 1)}+{tmp_path / 'adapter.safetensors'}")
    with pytest.raises(CheckpointError, match="is no adapter"):
        load_network(f"{path}+{path}")
    with pytest.raises(CheckpointError, match="works at the size"):
        load_network(f"{path}+{tmp_path / 'adapter.safetensors'}", image_size=2 * SIDE)


@pytest.mark.parametrize("name", METHODS)
def test_the_checkpoint_of_a_training_predicts(tmp_path, name):
    sam = trained(name)
    save_checkpoint(tmp_path / "whole.pth", sam.state_dict(), card_of(sam, "base.pth"))
    assert torch.allclose(encode(load_network(tmp_path / "whole.pth").sam), encode(sam), atol=2e-5)


def test_the_commands_take_a_base_and_an_adapter(tmp_path):
    sam = trained("lora")
    save_adapter(tmp_path / "adapter.safetensors", sam, card_of(sam, "gone.pth"))
    weights = f"{write_base(tmp_path)}+{tmp_path / 'adapter.safetensors'}"
    write_png(tmp_path / "scan.png", np.random.default_rng(0).integers(0, 255, (50, 60, 3), dtype=np.uint8))
    assert recognise(weights) is None, "no checkpoint of another task"
    arguments = [str(tmp_path / "scan.png"), "--point", "30,20", "--weights", weights, "--out", str(tmp_path / "out")]
    assert predict(arguments) == 0
    assert (tmp_path / "out" / "scan_labels.png").is_file()
