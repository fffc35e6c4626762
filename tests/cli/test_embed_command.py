"""``ultrasam embed``: names, the last line, and the status."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from ultrasam.checkpoints import sha256_of
from ultrasam.checkpoints.saving import save_checkpoint
from ultrasam.cli.embed import build_parser
from ultrasam.cli.main import main
from ultrasam.modeling.build import build_sam


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    sam = build_sam("vit_tiny", 64)
    path = tmp_path_factory.mktemp("weights") / "toy.safetensors"
    card = {
        "name": "toy", "architecture": "vit_tiny", "mlp_residual": "single",
        "preprocessing": sam.preprocessing.to_dict(), "passes": ["single"],
    }  # fmt: skip
    save_checkpoint(path, sam.state_dict(), card)
    return str(path)


@pytest.fixture
def scans(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "scans" / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/a.png"):
        Image.fromarray(rng.integers(0, 256, (48, 64), dtype=np.uint8)).save(tmp_path / "scans" / name)
    np.save(tmp_path / "scans" / "cine.npy", rng.integers(0, 256, (4, 32, 48), dtype=np.uint8))
    return tmp_path / "scans"


def test_a_folder_becomes_one_file(weights, scans, tmp_path, capsys):
    out = tmp_path / "f.safetensors"
    assert main(["embed", str(scans), "--weights", weights, "--out", str(out), "--every", "2", "--maps"]) == 0
    frames = {"a.png#0", "sub/a.png#0", "cine.npy#0", "cine.npy#2"}
    found = load_file(out)
    assert set(found) == frames | {f"{name}/map" for name in frames}
    assert found["a.png#0"].shape == (256,) and found["a.png#0/map"].shape == (256, 4, 4)
    with safe_open(out, "pt") as opened:
        about = json.loads(opened.metadata()["ultrasam"])
    assert about["weights_sha256"] == sha256_of(weights) and about["weights"] == "toy"
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"wrote features of 4 frames of 3 files to {out} (")


def test_a_broken_file_is_named_and_the_status_tells(weights, scans, tmp_path, capsys):
    (scans / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    out = tmp_path / "f.safetensors"
    assert main(["embed", str(scans), "--weights", weights, "--out", str(out)]) == 2
    said = capsys.readouterr()
    assert said.err.count("error: ") == 1 and "bad.png" in said.err
    assert "6 frames of 3 files, 1 could not be used" in said.out.splitlines()[-1]
    assert len(load_file(out)) == 6


def test_names_that_clash_are_refused(weights, scans, tmp_path, capsys):
    command = ["embed", str(scans / "a.png"), str(scans / "sub" / "a.png"), "--weights", weights]
    assert main([*command, "--out", str(tmp_path / "f.safetensors")]) == 2
    assert "two files have the name 'a.png'" in capsys.readouterr().err
    assert not (tmp_path / "f.safetensors").exists()
    assert main(["embed", str(scans / "none"), "--out", str(tmp_path / "f.safetensors")]) == 2


def test_the_page_names_every_option():
    text = (Path(__file__).resolve().parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    cells = [line.split("|")[1] for line in text.partition("## Features")[2].splitlines() if line.startswith("| `--")]
    named = {option for cell in cells for option in re.findall(r"--[a-z][a-z-]+", cell)}
    real = {name for action in build_parser()._actions for name in action.option_strings if name[2:]}
    assert named == real - {"--help"}
