"""Features of files: the numbers of the encoder, names, and a file that is whole or not there."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from ultrasam.errors import ConfigError, DataError
from ultrasam.inference.embed import TensorFile, embed_files
from ultrasam.inference.model import UltraSam
from ultrasam.modeling.build import build_sam


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sam = build_sam("vit_tiny", 64).eval().requires_grad_(False)
    return UltraSam(SimpleNamespace(sam=sam, passes=(), mask_prompt=True, card={"name": "toy"}))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "scans" / "früh").mkdir(parents=True)
    for name, size in (("a.png", (40, 64)), ("früh/b.png", (90, 30))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / "scans" / name)
    np.save(tmp_path / "scans" / "cine.npy", rng.integers(0, 256, (7, 32, 48), dtype=np.uint8))
    return tmp_path / "scans"


def files_of(folder, *names):
    return [(folder / name, name) for name in names]


@pytest.mark.parametrize("batch", [1, 3])
def test_features_are_those_of_the_encoder(model, folder, tmp_path, batch):
    out = tmp_path / "deep" / "features.safetensors"
    report = embed_files(
        model, files_of(folder, "a.png", "früh/b.png", "cine.npy"), out, maps=True, every=3, batch=batch,
        weights_sha256="cd" * 32,
    )  # fmt: skip
    assert (report.files, report.frames, report.failures) == (3, 5, [])
    found = load_file(out)
    frames = ["a.png#0", "früh/b.png#0", "cine.npy#0", "cine.npy#3", "cine.npy#6"]
    assert set(found) == {name + end for name in frames for end in ("", "/map")}
    for name in frames:
        path, _, number = name.rpartition("#")
        pixels = np.load(folder / path)[int(number)] if path.endswith("npy") else np.asarray(Image.open(folder / path))
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[..., None], 3, axis=2)
        features = model.encode([pixels])[0].features[0]
        scale = 64 / max(pixels.shape[:2])
        # The square has 4 x 4 cells of 16 pixels; those without any pixel of the image are left out.
        rows, columns = (int(np.ceil(int(side * scale + 0.5) / 16)) for side in pixels.shape[:2])
        assert torch.allclose(found[name], features[:, :rows, :columns].mean(dim=(1, 2)), atol=1e-5)
        assert found[f"{name}/map"].dtype == torch.float16
        assert torch.allclose(found[f"{name}/map"].float(), features, atol=5e-3)
    with safe_open(out, "pt") as opened:
        about = json.loads(opened.metadata()["ultrasam"])
    assert about["weights_sha256"] == "cd" * 32 and about["weights"] == "toy"
    assert about["preprocessing"]["square"] == 64
    assert about["frames"]["früh/b.png#0"] == {"size": [90, 30], "cells": [4, 2], "spacing": None}
    assert sorted(path.name for path in out.parent.iterdir()) == ["features.safetensors"]


def test_a_broken_file_is_named_and_the_others_are_written(model, folder, tmp_path):
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 50)
    said = []
    report = embed_files(
        model, files_of(folder, "bad.png", "a.png", "gone.png"), tmp_path / "f.safetensors", say=said.append
    )
    assert len(report.failures) == 2 and "bad.png" in report.failures[0] and "gone.png" in report.failures[1]
    assert said == ["a.png: 1 frame"]
    assert set(load_file(tmp_path / "f.safetensors")) == {"a.png#0"}


def test_nothing_is_written_where_no_file_can_be_used(model, folder, tmp_path):
    out = tmp_path / "f.safetensors"
    out.write_bytes(b"before")
    with pytest.raises(DataError, match=r"none of 1 files could be used; the first: .*gone\.png"):
        embed_files(model, files_of(folder, "gone.png"), out)
    assert out.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["f.safetensors"]


def test_a_crash_leaves_no_file(model, folder, tmp_path, monkeypatch):
    def broken(images):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model, "encode", broken)
    with pytest.raises(RuntimeError):
        embed_files(model, files_of(folder, "a.png"), tmp_path / "f.safetensors")
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []


def test_requests_that_cannot_be_met_are_refused(model, folder, tmp_path):
    with pytest.raises(ConfigError, match=r"\.safetensors, got 'f\.npz'"):
        embed_files(model, files_of(folder, "a.png"), tmp_path / "f.npz")
    with pytest.raises(ConfigError, match="two files have the name"):
        embed_files(model, files_of(folder, "a.png", "a.png"), tmp_path / "f.safetensors")
    with pytest.raises(ConfigError, match="at least 1"):
        embed_files(model, files_of(folder, "a.png"), tmp_path / "f.safetensors", every=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        embed_files(model, files_of(folder, "a.png"), tmp_path / "file" / "f.safetensors")


def test_tensor_files_are_read_by_safetensors(tmp_path):
    path = tmp_path / "t.safetensors"
    values = {
        "a b": np.arange(6, dtype=np.float32).reshape(2, 3), "é": np.array([1.5, -2], np.float16),
        "empty": np.zeros((0, 4), np.float32),
    }  # fmt: skip
    with TensorFile(path) as target:
        for name, array in values.items():
            target.add(name, array)
        assert not path.exists()
        target.finish({"format": "pt", "note": "ü"})
    found = load_file(path)
    assert {name: tuple(value.shape) for name, value in found.items()} == {k: v.shape for k, v in values.items()}
    assert all(np.array_equal(found[name].numpy(), array) for name, array in values.items())
    with safe_open(path, "np") as opened:
        assert opened.metadata()["note"] == "ü"
    with TensorFile(path) as target:
        target.add("a", np.zeros(1, np.float32))
        with pytest.raises(ConfigError, match="'a'"):
            target.add("a", np.zeros(1, np.float32))
